"""Every rule gives what ONNX Runtime gives."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snowsdeploy.models.onnx.rules import RULES
from tests.models.onnx.cases import elementwise, layouts, windows
from tests.models.onnx.cases.table import CASES, Entry
from tests.models.onnx.check import check

GROUPS = (elementwise, layouts, windows)
EXAMPLES = 6


@pytest.mark.parametrize("entry", CASES, ids=lambda entry: entry.name)
def test_rule(entry: Entry) -> None:
    @settings(
        max_examples=EXAMPLES * len(entry.operators) if len(entry.operators) < 6 else 40,
        deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def run(data: st.DataObject) -> None:
        opset = data.draw(st.sampled_from(entry.opsets))
        case = entry.build(data.draw, opset)
        check(case.nodes, case.inputs, case.initializers, opset, outputs=case.outputs)

    run()


def test_every_rule_has_a_case() -> None:
    assert set(RULES) == {operator for entry in CASES for operator in entry.operators}
