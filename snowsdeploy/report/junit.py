"""Verdict -> JUnit XML, one test case a gate, as CI servers read it."""

from __future__ import annotations

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from snowsdeploy.artifacts import Report, Verdict


def render_junit(report: Report, verdict: Verdict) -> str:
    """A failed gate is a failure; an inconclusive one is an error, because a skipped test would look like a pass.

    Args:
        report: What was judged; it names the model.
        verdict: The gates.
    """
    suite = TestSuite(f"snowsdeploy {report.source.arch or report.source.source} {report.prune.pattern}")
    suite.timestamp = report.created
    for rule in verdict.rules:
        case = TestCase(rule.rule, classname="snowsdeploy.gate")
        text = f"measured {rule.measured}, limit {rule.limit}" + (f": {rule.reason}" if rule.reason else "")
        if rule.verdict == "fail":
            case.result = [Failure(text, "gate")]
        elif rule.verdict == "inconclusive":
            case.result = [Error(text, "inconclusive")]
        else:
            case.system_out = text
        suite.add_testcase(case)
    document = JUnitXml("snowsdeploy")
    document.add_testsuite(suite)
    content = document.tostring()  # type: ignore[no-untyped-call]  # the library types its elements only
    return content.decode() if isinstance(content, bytes) else str(content)
