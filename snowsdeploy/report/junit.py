"""Verdict -> JUnit XML, one test case a gate, as CI servers read it."""

from __future__ import annotations

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from snowsdeploy.plain_text import plain, without_commands
from snowsdeploy.values import Report, Verdict


def render_junit(report: Report, verdict: Verdict) -> str:
    """A failed gate is a failure, and so is an inconclusive one: a skipped test would look like a pass.

    The type of a failure tells them apart. Only elements and attributes that both Jenkins' schema (junit-10.xsd) and
    GitLab know are written.

    Args:
        report: What was judged; it names the model.
        verdict: The gates.
    """
    suite = TestSuite(f"snowsdeploy {report.source.arch or report.source.source} {report.prune.pattern}")
    suite.timestamp = report.created
    for rule in verdict.rules:
        case = TestCase(rule.rule, classname="snowsdeploy.gate")
        if rule.verdict == "pass":
            case.system_out = rule.account
        else:
            case.result = [Failure(rule.account, "inconclusive" if rule.verdict == "inconclusive" else "gate")]
        suite.add_testcase(case)
    document = JUnitXml("snowsdeploy")
    document.add_testsuite(suite)
    for element in suite._elem.iter():  # every text and attribute, whoever set it
        element.text = element.text and plain(element.text)
        for name, value in element.items():
            element.set(name, plain(value))
    content = document.tostring()  # type: ignore[no-untyped-call]  # the library types its elements only
    return without_commands(content.decode() if isinstance(content, bytes) else str(content))
