"""The gates and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from snowsdeploy_cli.console import say
from snowsdeploy_cli.render.table import STYLE, make_table

if TYPE_CHECKING:
    from rich.console import Console

    from snowsdeploy.values import Verdict

_SENTENCE = {
    "pass": "PASSED",
    "fail": "FAILED: at least one gate is not met",
    "inconclusive": "INCONCLUSIVE: no gate fails, but not every gate could be judged",
}


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Every gate with measured value and limit, the reasons, and the verdict last, where the eye is."""
    table = make_table("Gates", "gate", "measured", "limit", "verdict")
    for rule in verdict.rules:
        style = STYLE[rule.verdict]
        table.add_row(rule.rule, rule.measured, rule.limit, Text(rule.verdict, style))
    console.print(table)
    for rule in verdict.rules:
        if rule.reason:
            say(console, f"{rule.rule}: {rule.reason}")
    say(console, _SENTENCE[verdict.verdict], style=f"bold {STYLE[verdict.verdict]}")
