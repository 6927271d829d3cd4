"""What CI servers read: JUnit XML, GitHub's workflow commands, the benchmark array."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from junitparser import JUnitXml

from snowsdeploy.gate.judge import judge
from snowsdeploy.report.annotations import render_annotations
from snowsdeploy.report.benchmark import render_benchmark
from snowsdeploy.report.junit import render_junit
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import RuleResult, Verdict
from tests.sample_report import make_report

VERDICT = Verdict(
    verdict="fail",
    rules=(
        RuleResult(rule="layout", measured="2 of 2", limit="2 of 2", verdict="pass"),
        RuleResult(rule="parity", measured="1e-2", limit="<= 1e-4", verdict="fail"),
        RuleResult(
            rule="speed-up, batch 1",
            measured="1.0x",
            limit=">= 1.1x",
            verdict="inconclusive",
            reason="90 % & <more>\nruns",
        ),
    ),
)

# Elements and attributes of Jenkins' junit-10.xsd that a gate may need.
SUITE = {"name", "tests", "failures", "errors", "time"}
JENKINS = {
    "testsuites": SUITE,
    "testsuite": SUITE | {"skipped", "timestamp"},
    "testcase": {"name", "classname", "time"},
    "failure": {"type", "message"},
    "system-out": set[str](),
}


def test_junit_has_a_case_a_gate_and_an_inconclusive_one_is_no_pass() -> None:
    text = render_junit(make_report(), VERDICT)
    (suite,) = list(JUnitXml.fromstring(text.encode()))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 2, 0, 0)
    assert [case.name for case in suite] == [rule.rule for rule in VERDICT.rules]
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    assert {case.get("classname") for case in root.iter("testcase")} == {"snowsdeploy.gate"}
    failed, inconclusive = root.iter("failure")
    assert (failed.get("type"), inconclusive.get("type")) == ("gate", "inconclusive")
    assert "90 % & <more>" in str(inconclusive.get("message"))
    for element in root.iter():
        assert set(element.keys()) <= JENKINS[element.tag]


def test_annotations_name_the_gates_that_do_not_pass_on_one_line_each() -> None:
    lines = render_annotations(VERDICT)
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning"]
    assert not any("\n" in line for line in lines)
    assert "90 %25 & <more>%0Aruns" in lines[1]
    assert "title=snowsdeploy gate%3A speed-up%2C batch 1::" in lines[1]
    assert render_annotations(judge(make_report(), GatePolicy())) == []


def test_the_benchmark_array_has_the_fields_that_dashboards_read() -> None:
    rows = json.loads(render_benchmark(make_report()))
    assert {tuple(row) for row in rows} == {("name", "unit", "value", "range", "extra")}
    values = {row["name"]: row["value"] for row in rows}
    assert values["resnet20 fp32 top-1 drop"] == 0.5
    assert values["resnet20 fp32 latency, batch 128"] == 1234.5
