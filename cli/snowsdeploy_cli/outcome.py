"""Verdict -> exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snowsdeploy.artifacts import Verdict

PASSED, GATE_FAILED, INCONCLUSIVE = 0, 4, 5


def exit_code(verdict: Verdict | None) -> int:
    """0 passed, 4 failed, 5 inconclusive; a report without a verdict is inconclusive."""
    if verdict is None:
        return INCONCLUSIVE
    return {"pass": PASSED, "fail": GATE_FAILED, "inconclusive": INCONCLUSIVE}[verdict.verdict]
