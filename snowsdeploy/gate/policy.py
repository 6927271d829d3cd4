"""The gate's policy: limits in a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from snowsdeploy.artifacts import Precision
from snowsdeploy.errors import UsageError

Share = Annotated[float, Field(ge=0, le=1)]
Limit = Annotated[float, Field(gt=0)]
# FP32 differs by the order of sums; FP16 keeps 11 bits, INT8 8: what a sound conversion of a whole model reaches
PARITY_LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.2}


class GatePolicy(BaseModel):
    """Limits; a rule whose limit is None is off.

    Attributes:
        max_accuracy_drop: Top-1, percentage points dense minus sparse. Needs labels.
        min_top1: Sparse top-1, 0 to 1. Needs labels.
        min_top1_agreement: Share of images on which both models choose the same class; judged when there are no labels.
        min_coverage: Share of all convolution and matrix-product weights that lie in layers with the pattern.
        max_parity_error: Relative L2 error of PyTorch against ONNX, any output and batch size; one number, or one for
            each precision, where a precision that is not in the table is not judged.
        min_speedup: Dense over sparse median latency, every batch size.
        max_latency_ms: Median latency of the sparse file, every batch size.
        max_top1_regression: Sparse top-1, percentage points below the baseline report's.
        max_latency_regression: Sparse median latency, percent above the baseline report's, every batch size.
        latency_floor_ms: A difference in latency below this is no regression, whatever its percentage.
        max_size_regression: Size of the sparse file, percent above the baseline report's.
        required_provider: The provider that must have run every node: cpu, cuda or tensorrt.
        required_compilation: Compute capabilities for which the ahead-of-time compiler must have taken the sparse file;
            a refusal fails whatever this says.
        min_found: Share of the pruned layers that the engine called eligible for sparse tactics; one number, or one for
            each precision, where a precision that is not in the table is not judged.
        min_chosen: Share of the pruned layers that the engine runs with sparse kernels, written in the same way.
        strict_intervals: Judge accuracy by the whole confidence interval: inconclusive when the limit lies inside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_accuracy_drop: Annotated[float, Field(ge=0, le=100)] | None = 2.0
    min_top1: Share | None = None
    min_top1_agreement: Share | None = 0.9
    min_coverage: Share | None = 0.5
    max_parity_error: Limit | dict[Precision, Limit] | None = Field(default_factory=lambda: dict(PARITY_LIMITS))
    min_speedup: Annotated[float, Field(gt=0)] | None = None
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    max_top1_regression: Annotated[float, Field(ge=0, le=100)] | None = 0.5
    max_latency_regression: Annotated[float, Field(ge=0)] | None = 10.0
    latency_floor_ms: Annotated[float, Field(ge=0)] = 0.05
    max_size_regression: Annotated[float, Field(ge=0)] | None = 1.0
    required_provider: str | None = None
    required_compilation: tuple[str, ...] = ()
    min_found: Share | dict[Precision, Share] | None = None
    min_chosen: Share | dict[Precision, Share] | None = None
    strict_intervals: bool = False

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


def load_policy(path: Path) -> GatePolicy:
    """Read the table `[gate]` of a TOML file.

    Raises:
        UsageError: Unreadable, an unknown key, or a value out of range.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            "--policy cannot be read", seen=f"{path}: {error}", fix="pass a TOML file with [gate]"
        ) from error
    table = content.get("gate")
    if not isinstance(table, dict):
        raise UsageError(
            "--policy has no table [gate]", seen=f"{path}: {', '.join(content) or 'empty'}", allowed="[gate]"
        )
    known = set(GatePolicy.model_fields)
    for key in [*(f"{k}" for k in content if k != "gate"), *(k for k in table if k not in known)]:
        close = difflib.get_close_matches(key, known, 1)
        raise UsageError(
            "--policy has an unknown key",
            seen=f"{path}: {key}",
            allowed=", ".join(sorted(known)),
            fix=f"did you mean {close[0]}?" if close else "remove it",
        )
    try:
        return GatePolicy.model_validate(table)
    except ValidationError as error:
        rows = [f"{e['loc'][0]}: {e['msg']}, not {e['input']!r}" for e in error.errors()]
        raise UsageError("--policy has a value out of range", seen=f"{path}: {'; '.join(rows)}") from error
