"""The limits of the gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from snowsdeploy.errors import UsageError
from snowsdeploy.settings.base import Settings, unknown_name
from snowsdeploy.settings.runtime import ProviderName
from snowsdeploy.values import PARITY_LIMITS, Precision

T = TypeVar("T")

OFF = "off"  # how a TOML file, which has no null, says that a rule is off


def _off(value: Any) -> Any:  # noqa: ANN401 - whatever the user wrote
    return None if value == OFF else value


class _OffInSchema:
    """Tells the JSON Schema of `"off"`."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"const": OFF}, handler(schema)]}


Or = Annotated[T | None, BeforeValidator(_off), _OffInSchema()]
Share = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=0, le=100)]
Above0 = Annotated[float, Field(gt=0)]
From0 = Annotated[float, Field(ge=0)]


class GatePolicy(Settings):
    """The limits of the gates; a rule whose limit is `"off"` (None in Python) is not applied."""

    max_accuracy_drop: Or[Points] = Field(
        2.0, description="Largest drop of top-1 from the dense model, in percentage points; needs labels."
    )
    min_top1: Or[Share] = Field(None, description="Least top-1 of the sparse model, from 0 to 1; needs labels.")
    min_top1_agreement: Or[Share] = Field(
        0.9,
        description="Least share of images on which both models choose the same class; judged without labels.",
    )
    min_coverage: Or[Share] = Field(
        0.5,
        description="Least share of all convolution and matrix-product weights that lie in layers with the pattern.",
    )
    max_parity_error: Or[Above0 | dict[Precision, Above0]] = Field(
        default_factory=lambda: dict(PARITY_LIMITS),
        description="Largest relative L2 error of PyTorch against ONNX, of any output and batch size: one number, or a "
        "table with one for each precision, where a precision that is not in the table is not judged.",
    )
    min_speedup: Or[Above0] = Field(None, description="Least dense over sparse median latency, at every batch size.")
    max_latency_ms: Or[Above0] = Field(
        None, description="Largest median latency of the sparse file in milliseconds, at every batch size."
    )
    max_top1_regression: Or[Points] = Field(
        0.5, description="Largest drop of the sparse top-1 below the baseline report's, in percentage points."
    )
    max_latency_regression: Or[From0] = Field(
        10.0, description="Largest rise of the sparse median latency above the baseline report's, in percent."
    )
    latency_floor_ms: From0 = Field(
        0.05, description="A difference in latency below this is no regression, whatever its percentage."
    )
    max_size_regression: Or[From0] = Field(
        1.0, description="Largest rise of the sparse file's size above the baseline report's, in percent."
    )
    required_provider: Or[ProviderName] = Field(
        None, description="The provider that must have run every node: cpu, cuda, tensorrt or tensorrt-rtx."
    )
    required_compilation: tuple[str, ...] = Field(
        (),
        description="Compute capabilities for which the ahead-of-time compiler must have accepted the sparse file; a "
        "refusal fails whatever this says.",
    )
    min_found: Or[Share | dict[Precision, Share]] = Field(
        None,
        description="Least share of the pruned layers that the engine called eligible for sparse tactics: one number, "
        "or a table with one for each precision.",
    )
    min_chosen: Or[Share | dict[Precision, Share]] = Field(
        None,
        description="Least share of the pruned layers that the engine runs with sparse kernels, written alike.",
    )
    strict_intervals: bool = Field(
        False, description="Judge accuracy by the whole confidence interval: inconclusive when the limit lies inside."
    )

    def parity_limit(self, precision: Precision) -> float | None:
        """What `max_parity_error` says of a precision."""
        return _limit(self.max_parity_error, precision)

    def found_limit(self, precision: Precision) -> float | None:
        """What `min_found` says of a precision."""
        return _limit(self.min_found, precision)

    def chosen_limit(self, precision: Precision) -> float | None:
        """What `min_chosen` says of a precision."""
        return _limit(self.min_chosen, precision)


def _limit(limit: float | dict[Precision, float] | None, precision: Precision) -> float | None:
    return limit.get(precision) if isinstance(limit, dict) else limit


def policy_of_table(table: object, where: str) -> GatePolicy:
    """The policy that a table of a TOML file holds.

    Args:
        table: Limits by name.
        where: The option and the file, for messages.

    Raises:
        UsageError: Not a table, an unknown key, or a value out of range.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{where}: gate is not a table", seen=str(table), allowed="[gate]")
    for key in table:
        if key not in GatePolicy.model_fields:
            raise unknown_name(f"{where} has an unknown key", str(key), GatePolicy.model_fields)
    try:
        return GatePolicy.model_validate(dict(table))
    except ValidationError as error:
        rows = [f"{e['loc'][0]}: {e['msg']}, not {e['input']!r}" for e in error.errors()]
        raise UsageError(f"{where} has a value out of range", seen="; ".join(dict.fromkeys(rows))) from error
