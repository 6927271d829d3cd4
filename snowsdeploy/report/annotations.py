"""Verdict -> GitHub workflow commands: a line each, shown beside the run."""

from __future__ import annotations

from snowsdeploy.plain_text import escaped_lines, without_commands
from snowsdeploy.values import Verdict

_LEVELS = {"fail": "error", "inconclusive": "warning"}


def render_annotations(verdict: Verdict) -> list[str]:
    """One line for each gate that did not pass; values are escaped as GitHub asks for."""
    lines = []
    for rule in verdict.rules:
        if rule.verdict in _LEVELS:
            title = _escape(f"snowsdeploy gate: {rule.rule}").replace(":", "%3A").replace(",", "%2C")
            lines.append(f"::{_LEVELS[rule.verdict]} title={title}::{_escape(rule.account)}")
    return lines


def _escape(text: str) -> str:
    """As GitHub asks for; ends of lines stay, other characters that act do not."""
    lines = escaped_lines(text.replace("\r\n", "\n").replace("\r", "\n"))
    return without_commands(lines).replace("%", "%25").replace("\n", "%0A")
