"""No change of one field turns fail or inconclusive into pass, unless it is the measured figure itself or its limit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from snowsdeploy.gate.judge import judge
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.values import Compilation, LayerSparsity, Parity, ParityRow, Report
from tests.sample_report import make_report, unlabelled, with_engine, with_variant

REMOVED = object()
HERE = Path()


def broken_layer() -> Report:
    report = make_report()
    sparsity = report.variants[0].sparsity
    assert sparsity is not None
    first = sparsity.layers[0]
    row = LayerSparsity(**{**dict(first), "violations": 5, "zeros": 0.5 - 5 / first.weights})
    return with_variant(report, sparsity=sparsity.model_copy(update={"layers": (row, *sparsity.layers[1:])}))


def far_apart() -> Report:
    row = ParityRow(output="output", batch=8, max_abs=1.0, relative_l2=0.5)
    return with_variant(make_report(), parity=Parity(provider="cpu", rows=(row,)))


def refused_by_the_compiler() -> Report:
    tried = {"compiler": "c", "capabilities": ("8.6",), "messages": ("no",), "engine_bytes": 0, "seconds": 1.0}
    return with_variant(make_report(), compilation=Compilation(accepted=False, **tried))


def crashed() -> Report:
    return with_variant(make_report(), crash="fault", parity=None, accuracy=None, latency=None)


METRIC = r"variants\.0\.accuracy\.metrics\.0"
AGREEMENT = r"variants\.0\.accuracy\.agreement\.0(\.usual_limit|\.measured.*)?"
LATENCY = r"variants\.0\.latency"
BASES: dict[str, tuple[Report, GatePolicy, str]] = {
    # name -> report, policy, and the places of the figures that are judged, and of their limits
    "a layer is broken": (broken_layer(), GatePolicy(), "nothing"),
    "coverage": (make_report(), GatePolicy(min_coverage=0.9999), "nothing"),
    "parity": (far_apart(), GatePolicy(), r".*\.parity\.rows\.0\.(relative_l2|rounding)"),
    "the drop": (make_report(sparse_right=700), GatePolicy(), rf"{METRIC}\.usual_drop"),
    "the drop, by the policy": (make_report(sparse_right=700), GatePolicy(max_drop=1.0), METRIC),
    "a drop inside its interval": (
        make_report(), GatePolicy(max_drop={"top1": 0.6}, strict_intervals=True), rf"{METRIC}\.drop\.high"
    ),
    "no labels": (unlabelled(make_report()), GatePolicy(max_drop=1.0), "nothing"),
    "agreement": (unlabelled(make_report()), GatePolicy(agreement=0.99), AGREEMENT),
    "the speed-up": (make_report(), GatePolicy(min_speedup=1.2), rf"{LATENCY}\.ratios\.\d+\.(low|high)"),
    "the latency": (make_report(), GatePolicy(max_latency_ms=1.0), rf"{LATENCY}\.series\.\d+\.p50_ms"),
    "the provider": (
        make_report(), GatePolicy(required_provider="tensorrt"), rf"{LATENCY}\.providers(\..*)?"
    ),
    "the compiler": (
        refused_by_the_compiler(), GatePolicy(required_compilation=("8.6",)), r"variants\.0\.compilation.*"
    ),
    "sparse kernels": (with_engine(make_report()), GatePolicy(min_chosen=1.0), "nothing"),
    "a crash": (crashed(), GatePolicy(), "nothing"),
    "a precision": (make_report(), GatePolicy(max_parity_error={"fp16": 1.0}), "nothing"),
    "no baseline": (make_report(), GatePolicy(max_size_regression=1.0), "nothing"),
}  # fmt: skip


def places(content: object, above: str = "") -> Iterator[str]:
    """Every key and position of JSON, those inside of it too."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        place = f"{above}{key}"
        yield place
        yield from places(value, f"{place}.")


def changed(text: str, place: str, value: object) -> str:
    content = json.loads(text)
    *path, last = place.split(".")
    at: Any = content
    depth = 0
    while depth < len(path):  # names of layers and providers hold dots
        key = next(".".join(path[depth:end]) for end in range(len(path), depth, -1) if _in(at, path[depth:end]))
        depth += key.count(".") + 1
        at = at[int(key)] if isinstance(at, list) else at[key]
    index: Any = int(last) if isinstance(at, list) else last
    if value is REMOVED:
        del at[index]
    else:
        at[index] = value
    return json.dumps(content)


def _in(at: object, keys: list[str]) -> bool:
    return (isinstance(at, dict) and ".".join(keys) in at) or (isinstance(at, list) and len(keys) == 1)


VALUES = (
    st.just(REMOVED)
    | st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 0.0, 0.5, 1.0, 2**40, -0.5, 1e-9, 1e9, float("inf"), float("-inf"), float("nan")])
    | st.floats()
    | st.integers(-5, 2**70)
    | st.sampled_from(["", "pass", "yes", "no", "unknown", "2:4", "4:4", "dense", "sparse", "fp16", "top1", "0" * 64])
    | st.just([])
    | st.just({})
)


def verdict(text: str, policy: GatePolicy) -> str:
    try:
        report = Report.from_json_in(text, HERE)
    except ValidationError:
        return "refused"
    return judge(report, policy).verdict


@pytest.mark.parametrize("name", BASES)
def test_one_field_makes_no_pass(name: str) -> None:
    report, policy, figures = BASES[name]
    text = report.model_dump_json()
    assert verdict(text, policy) in ("fail", "inconclusive")
    leaves = [p for p in places(json.loads(text)) if p.startswith(("prune.", "variants.0.")) and not _dotted(p)]

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(st.sampled_from(leaves), VALUES)
    @example("variants.0.sparsity", None)
    @example("prune.decisions", [])
    @example("variants.0.sparsity.layers.0.violations", 0)
    @example("variants.0.sparsity.layers.0", REMOVED)
    @example("variants.0.crash", "")
    @example("prune.decisions.0", REMOVED)
    def no_pass(place: str, value: object) -> None:
        found = verdict(changed(text, place, value), policy)
        assert found != "pass" or re.fullmatch(figures, place), (place, value)

    no_pass()


def _dotted(place: str) -> bool:
    """Keys of tables of texts, which hold dots themselves."""
    return ".metadata." in place or ".kept." in place
