"""The limits of the gates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from snowsdeploy.errors import UsageError
from snowsdeploy.settings.base import Settings, one_of, unknown_name
from snowsdeploy.settings.runtime import ProviderName
from snowsdeploy.settings.validate import Capability
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
Real = Annotated[float, Field(strict=True)]  # no text, no truth value
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Above0 = Annotated[float, Field(strict=True, gt=0)]
From0 = Annotated[float, Field(strict=True, ge=0)]
Relative = Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*%$")]
Limit = From0 | Relative | Literal["off"]
Limits = Annotated[Limit | dict[str, Limit], Field(union_mode="left_to_right")]
Bounds = From0 | dict[str, From0 | Literal["off"]]


SWITCHED = (
    "coverage", "parity", "accuracy", "drop", "agreement", "speed-up", "latency", "provider", "compilation", "found",
    "chosen", "metric-regression", "latency-regression", "size-regression",
)  # fmt: skip


class GatePolicy(Settings):
    """The limits of the gates; a rule whose limit is `"off"` (None in Python) is not applied."""

    max_drop: Or[Limits] = Field(
        default_factory=dict,
        description="Largest drop from the dense model: one number for the metric that counts most, or a table by "
        'metric. Percentage points of a share, else the metric\'s own unit; `"1%"` is relative to the dense value. A '
        "metric that is not named has its usual limit, such as 2 points of top-1 and of mean IoU, and 0.5 dB of PSNR.",
    )
    min: dict[str, Real] = Field(
        default_factory=dict, description="Least value of the sparse model by metric; a share from 0 to 1."
    )
    max: dict[str, Real] = Field(
        default_factory=dict, description="Largest value of the sparse model by metric, where less is better."
    )
    agreement: Or[Bounds] = Field(
        default_factory=dict,
        description="How alike both models' outputs must be, by measure, or one number for the first; judged where "
        "it is given, and where there is no metric. A measure that is not named has its usual limit, such as 0.9 of "
        "equal classes.",
    )
    min_coverage: Or[Share] = Field(
        0.5,
        description="Least share of all convolution and matrix-product weights that lie in layers with the pattern.",
    )
    max_parity_error: Or[Above0 | dict[Precision, Above0]] = Field(
        default_factory=lambda: dict(PARITY_LIMITS),
        description="Largest relative L2 error of PyTorch against ONNX, of any output and batch size: one number, or a "
        "table with one for each precision, where a precision that is not in the table is not judged and one that is "
        "in it must be in the report.",
    )
    min_speedup: Or[Above0] = Field(None, description="Least dense over sparse median latency, at every batch size.")
    max_latency_ms: Or[Above0] = Field(
        None, description="Largest median latency of the sparse file in milliseconds, at every batch size."
    )
    max_metric_regression: Or[Limits] = Field(
        default_factory=dict,
        description="Largest drop below the baseline report's sparse value, written as `max_drop`; usually 0.5 points "
        "of a share and 0.1 dB of PSNR.",
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
    required_compilation: tuple[Capability, ...] = Field(
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

    off: tuple[Annotated[str, *one_of(SWITCHED)], ...] = Field(
        (), description=f"Rules that are not applied: {', '.join(SWITCHED)}. The layout is always judged."
    )

    def named(self, *fields: str) -> bool:
        """Whether a file or a caller gives one of some limits, and does not switch it off."""
        return any(getattr(self, field) is not None for field in self.model_fields_set.intersection(fields))

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
        fix = "write the limits below a line [gate], one a line"
        raise UsageError(f"{where}: gate is not a table", seen=str(table)[:200], allowed="[gate]", fix=fix)
    for key in table:
        if key not in GatePolicy.model_fields:
            raise unknown_name(f"{where} has an unknown key", str(key), GatePolicy.model_fields)
    if empty := [key for key, value in table.items() if value in ({}, [], ()) and key != "off"]:
        raise UsageError(
            f"{where} has a value out of range: it names a rule and no limit",
            seen="; ".join(f"{key} = {table[key]}" for key in empty),
            allowed="one limit at least",
            fix='"off" switches a rule off; left out, it has its default',
        )
    try:
        return GatePolicy.model_validate(dict(table))
    except ValidationError as error:
        keys = list(dict.fromkeys(str(e["loc"][0]) for e in error.errors()))
        raise UsageError(
            f"{where} has a value out of range",
            seen="; ".join(f"{key}: {table[key]!r}"[:200] for key in keys),
            allowed="; ".join(f"{key}: {_allowed(key, error)}" for key in keys),
            fix='write numbers without quotation marks; "off" switches a rule off; docs/settings.md has all keys',
        ) from error


def _allowed(key: str, error: ValidationError) -> str:
    """What pydantic wanted of one key, in each form that it may have; of those that got furthest into a table."""
    rows = [e for e in error.errors() if e["loc"][0] == key]
    texts = [e["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for e in rows]
    return " or ".join(dict.fromkeys(texts))


_GOAL = re.compile(r"\s*([A-Za-z_][\w@.\-]*)\s*(drop)?\s*(<=|>=)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*(%?)\s*")


class Goals(NamedTuple):
    """Goals by metric: how far each may fall, what it must reach, and what it must not exceed."""

    drops: dict[str, float | str]
    least: dict[str, float]
    most: dict[str, float]


def read_goals(goals: Sequence[str]) -> Goals:
    """Goals as `--metric-goal` states them: `map50 drop<=0.5`, `miou>=0.7`, `loss<=0.1`.

    Raises:
        UsageError: A goal is written otherwise.
    """
    read = Goals({}, {}, {})
    for goal in goals:
        found = _GOAL.fullmatch(goal)
        if (
            found is None
            or (found[2] and found[3] == ">=")
            or (found[5] and not found[2])
            or (found[2] and found[4][0] == "-")
        ):
            raise UsageError(
                "--metric-goal is no goal",
                seen=goal,
                allowed="'NAME drop<=X' in points or the metric's unit, 'NAME drop<=X%' of the dense value, "
                "'NAME>=X' or 'NAME<=X'",
                fix="write it in quotation marks, as in --metric-goal 'top1 drop<=1'",
            )
        name, drop, sign, number, percent = found.groups()
        if drop:
            read.drops[name] = f"{number}%" if percent else float(number)
        else:
            (read.least if sign == ">=" else read.most)[name] = float(number)
    return read


def with_goals(policy: GatePolicy, goals: Sequence[str]) -> GatePolicy:
    """A policy with goals over it; see `read_goals`.

    Raises:
        UsageError: A goal is none, or the policy has one limit for whatever metric counts most, which a goal for a drop
            would silently replace.
    """
    read = read_goals(goals)
    tables = {"min": {**policy.min, **read.least}, "max": {**policy.max, **read.most}}
    bounds = {name: table for name, table in tables.items() if table}
    if not read.drops:
        return policy.model_copy(update=bounds)
    if not isinstance(policy.max_drop, dict):
        raise UsageError(
            "--metric-goal and the policy's max_drop both say how far a metric may fall",
            seen=f"max_drop = {OFF if policy.max_drop is None else policy.max_drop}",
            allowed="a table by metric, such as max_drop = { top1 = 1.0 }",
            fix="name the metric in the policy",
        )
    return policy.model_copy(update={"max_drop": {**policy.max_drop, **read.drops}, **bounds})
