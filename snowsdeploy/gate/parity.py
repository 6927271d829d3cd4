"""The rule on PyTorch against ONNX."""

from __future__ import annotations

import math
from collections.abc import Iterator

from snowsdeploy.gate.results import decided, undecided
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import ParityRow, Report, RuleResult, Variant


def parity(variant: Variant, report: Report, policy: GatePolicy) -> Iterator[RuleResult]:
    """The ONNX file computes what PyTorch computes."""
    del report
    limit = policy.parity_limit(variant.precision)
    if limit is None:
        return
    text = f"<= {limit:.0e} relative"
    rows = variant.parity.rows if variant.parity else ()
    if not rows:
        yield undecided("parity", text, "parity was not measured: run snowsdeploy validate")
        return
    beyond = [row for row in rows if not row.within(limit)]
    worst = max(beyond or rows, key=_error)
    excused = not beyond and worst.relative_l2 > limit
    reason = f"rounding alone moves PyTorch's {worst.output} by {worst.rounding:.0e}" if excused else ""
    passed = decided("parity", f"{worst.relative_l2:.1e}", text, passed=not beyond)
    yield passed.model_copy(update={"reason": reason})


def _error(row: ParityRow) -> float:
    """What is no number is worse than any."""
    return math.inf if math.isnan(row.relative_l2) else row.relative_l2
