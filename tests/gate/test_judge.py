"""Every rule: pass, fail, inconclusive, missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from snowsdeploy.errors import UsageError
from snowsdeploy.gate.judge import judge
from snowsdeploy.settings.policy import GatePolicy, with_goals
from snowsdeploy.settings.read import load_policy
from snowsdeploy.values import Compilation, Parity, ParityRow, Report
from tests.sample_report import make_report, unlabelled, with_variant

OFF = {
    name: None
    for name in GatePolicy.model_fields
    if name.startswith(("max_", "min_")) or name in ("required_provider", "agreement")
}


def verdicts(report: Report, **limits: object) -> dict[str, str]:
    found = judge(report, GatePolicy.model_validate(OFF | limits))
    return {r.rule: r.verdict for r in found.rules}


def without(report: Report, *parts: str) -> Report:
    return with_variant(report, **dict.fromkeys(parts))


CASES = [
    # rule, limits, sparse images right of 1000 (917 dense), verdict
    ("top-1 drop", {"max_drop": 50.0}, 900, "pass"),
    ("top-1 drop", {"max_drop": 1.0}, 600, "fail"),
    ("top-1 drop", {"max_drop": 0.5, "strict_intervals": True}, 912, "inconclusive"),
    ("top-1 drop", {"max_drop": 0.5}, 912, "pass"),
    ("top-1 drop", {"max_drop": 0.4, "strict_intervals": True}, 912, "inconclusive"),  # the point is above
    ("top-1 drop", {"max_drop": 0.6, "strict_intervals": True}, 912, "inconclusive"),  # and here below
    ("top-1 drop", {"max_drop": 0.4}, 912, "fail"),
    ("top-1", {"min": {"top1": 0.5}}, 900, "pass"),
    ("top-1", {"min": {"top1": 0.95}}, 900, "fail"),
    ("top-1", {"min": {"top1": 0.9}, "strict_intervals": True}, 905, "inconclusive"),
    ("top-1", {"min": {"top1": 0.91}, "strict_intervals": True}, 905, "inconclusive"),
    ("top-1", {"min": {"top1": 0.91}}, 905, "fail"),
]


@pytest.mark.parametrize(("rule", "limits", "right", "verdict"), CASES)
def test_accuracy_rules(rule: str, limits: dict[str, object], right: int, verdict: str) -> None:
    assert verdicts(make_report(sparse_right=right), **limits)[rule] == verdict


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        ({"max_drop": 1.0}, "accuracy drop"),
        ({"min": {"top1": 0.5}}, "top1"),
        ({"max_parity_error": 1e-4}, "parity"),
        ({"min_coverage": 0.5}, "coverage"),
        ({"min_speedup": 1.0}, "speed-up"),
        ({"max_latency_ms": 1.0}, "latency"),
        ({"required_provider": "cpu"}, "provider"),
    ],
)
def test_what_was_not_measured_is_inconclusive(limits: dict[str, object], rule: str) -> None:
    bare = without(make_report(), "accuracy", "parity", "sparsity", "latency")
    assert verdicts(bare, **limits)[rule] == "inconclusive"
    assert judge(bare, GatePolicy()).verdict == "inconclusive"


def test_the_layout_rule_cannot_be_switched_off_and_names_broken_layers() -> None:
    report = make_report()
    assert verdicts(report)["layout"] == "pass"
    assert report.variants[0].sparsity is not None
    broken = report.variants[0].sparsity.layers[0].model_copy(update={"layout_valid": False, "violations": 3})
    names = [d.name for d in report.prune.pruned]
    assert broken.name in names
    layers = (broken, *report.variants[0].sparsity.layers[1:])
    bad = with_variant(report, sparsity=report.variants[0].sparsity.model_copy(update={"layers": layers}))
    verdict = judge(bad, GatePolicy.model_validate(OFF))
    assert verdict.verdict == "fail"
    assert broken.name in verdict.rules[0].reason


@pytest.mark.parametrize("order", [1, -1])
def test_a_layer_with_a_valid_and_a_broken_use_is_broken(order: int) -> None:
    report = make_report()
    sparsity = report.variants[0].sparsity
    assert sparsity is not None
    uses = (sparsity.layers[0], sparsity.layers[0].model_copy(update={"layout_valid": False, "violations": 3}))
    layers = (*uses[::order], *sparsity.layers[1:])
    bad = with_variant(report, sparsity=sparsity.model_copy(update={"layers": layers}))
    (rule,) = judge(bad, GatePolicy.model_validate(OFF)).rules
    assert (rule.verdict, rule.measured, rule.reason) == ("fail", "1 of 2 layers", sparsity.layers[0].name)


@pytest.mark.parametrize(("speedup", "verdict"), [(2.0, "pass"), (0.5, "fail"), (1.2, "inconclusive")])
def test_the_speedup_rule_is_judged_by_the_interval(speedup: float, verdict: str) -> None:
    report = make_report(speedup=speedup)
    assert report.variants[0].latency is not None
    ratios = tuple(
        r.model_copy(update={"speedup": speedup, "low": 0.9 * speedup, "high": 1.1 * speedup})
        for r in report.variants[0].latency.ratios
    )
    changed = with_variant(report, latency=report.variants[0].latency.model_copy(update={"ratios": ratios}))
    found = verdicts(changed, min_speedup=1.2)
    assert {v for rule, v in found.items() if rule.startswith("speed-up")} == {verdict}


def test_provider_latency_coverage_and_parity_limits() -> None:
    report = make_report()
    assert verdicts(report, required_provider="cpu")["provider"] == "pass"
    assert verdicts(report, required_provider="tensorrt")["provider"] == "fail"
    assert "fail" in verdicts(report, max_latency_ms=1e-6).values()
    assert "fail" not in verdicts(report, max_latency_ms=1e6).values()
    assert report.variants[0].sparsity is not None
    assert verdicts(report, min_coverage=report.variants[0].sparsity.coverage)["coverage"] == "pass"
    assert verdicts(report, max_parity_error=1e-30)["parity"] == "fail"


@pytest.mark.parametrize(("p50", "others", "verdict"), [(10.0, 30.0, "pass"), (30.0, 10.0, "fail")])
def test_the_latency_limit_is_of_the_sparse_files_median(p50: float, others: float, verdict: str) -> None:
    report = make_report()
    latency = report.variants[0].latency
    assert latency is not None
    ends = {"p50_low_ms": others, "p50_high_ms": others, "p90_ms": others, "p99_ms": others}
    series = tuple(
        row.model_copy(update={"mean_ms": others, **ends, "p50_ms": p50 if row.role == "sparse" else others})
        for row in latency.series
    )
    changed = with_variant(report, latency=latency.model_copy(update={"series": series}))
    rules = judge(changed, GatePolicy.model_validate(OFF | {"max_latency_ms": 20.0})).rules
    found = [(rule.rule, rule.verdict) for rule in rules if rule.rule.startswith("latency")]
    assert found == [("latency, batch 1", verdict), ("latency, batch 128", verdict)]


@pytest.mark.parametrize("accepted", [True, False])
def test_a_required_compute_capability_that_was_not_tried_is_inconclusive(accepted: bool) -> None:
    tried = Compilation(compiler="c", capabilities=("8.6", "8.9"), accepted=accepted, engine_bytes=1, seconds=1.0)
    report = with_variant(make_report(), compilation=tried)
    rules = judge(report, GatePolicy.model_validate(OFF | {"required_compilation": ("8.6", "12.0")})).rules
    (rule,) = (rule for rule in rules if rule.rule == "compilation")
    assert (rule.verdict, rule.reason) == ("inconclusive", "not tried for 12.0")
    found = verdicts(report, required_compilation=("8.6",))
    assert found["compilation"] == ("pass" if accepted else "fail")


def test_without_labels_agreement_is_judged() -> None:
    report = make_report()
    assert report.variants[0].accuracy is not None
    bare = report.variants[0].accuracy
    report = unlabelled(report)
    measured = bare.agreement[0].measured
    assert measured.high is not None
    assert verdicts(report, agreement=measured.value)["agreement, same class"] == "pass"
    assert verdicts(report, agreement=measured.high + 0.001)["agreement, same class"] == "fail"
    assert verdicts(report, agreement={"kl": 0.001, "same_class": "off"}) == {
        "layout": "pass",
        "agreement, KL": "fail",
    }


@pytest.mark.parametrize("limit", [0.955, 0.965])
def test_agreement_with_strict_intervals_is_inconclusive_with_the_limit_on_either_side(limit: float) -> None:
    report = make_report()
    accuracy = report.variants[0].accuracy
    assert accuracy is not None
    value = accuracy.agreement[0].measured
    assert value.low is not None
    assert value.high is not None
    assert value.low < min(limit, value.value) < max(limit, value.value) < value.high
    limits = {"agreement": limit, "strict_intervals": True}
    assert verdicts(unlabelled(report), **limits)["agreement, same class"] == "inconclusive"


def test_any_fail_beats_inconclusive() -> None:
    bare = without(make_report(sparse_right=100), "latency")
    found = judge(bare, GatePolicy(min_speedup=1.0))
    assert found.verdict == "fail"
    assert not found


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("[gate]\nmax_dorp = 1\n", "max_dorp"),
        ("[gate]\nmin_coverage = 2\n", "min_coverage"),
        ("[gates]\n", "gates"),
        ("[gate", "policy.toml"),
    ],
)
def test_a_bad_policy_is_named(tmp_path: Path, text: str, seen: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    assert seen in str(caught.value)


def test_a_policy_keeps_the_defaults_it_does_not_name(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[gate]\nmin_speedup = 1.1\n")
    assert load_policy(path) == GatePolicy(min_speedup=1.1)


@pytest.mark.parametrize(
    ("goals", "rule", "verdict"),
    [
        (["top1 drop<=1"], "top-1 drop", "pass"),
        (["top1 drop<=0.1"], "top-1 drop", "fail"),
        (["top1 drop<=1%"], "top-1 drop", "pass"),  # 0.917 points
        (["top1 drop<=0.5%"], "top-1 drop", "fail"),
        (["top5 drop <= 0.05"], "top-5 drop", "fail"),
        (["top1>=0.9"], "top-1", "pass"),
        (["top1>=0.99"], "top-1", "fail"),
        (["top1<=0.5"], "top-1", "fail"),
        (["map50 drop<=0.5"], "map50 drop", "inconclusive"),
        (["map50>=0.5"], "map50", "inconclusive"),
    ],
)
def test_goals_are_judged_as_the_field_states_them(goals: list[str], rule: str, verdict: str) -> None:
    found = judge(make_report(sparse_right=910), with_goals(GatePolicy(), goals))
    assert {r.rule: r.verdict for r in found.rules}[rule] == verdict


@pytest.mark.parametrize("goal", ["top1", "top1 drop>=1", "top1 = 3", "drop<=1 top1", "top1>=5%", "top1 drop<=-1", ""])
def test_what_is_no_goal_is_refused(goal: str) -> None:
    with pytest.raises(UsageError, match="--metric-goal"):
        with_goals(GatePolicy(), [goal])


def test_a_metric_without_a_usual_limit_needs_a_goal() -> None:
    report = make_report()
    assert report.variants[0].accuracy is not None
    metric = (
        report.variants[0].accuracy.metrics[0].model_copy(update={"name": "wer", "label": "wer", "usual_drop": None})
    )
    other = with_variant(report, accuracy=report.variants[0].accuracy.model_copy(update={"metrics": (metric,)}))
    (rule,) = (r for r in judge(other, GatePolicy()).rules if "drop" in r.rule)
    assert rule.verdict == "inconclusive"
    assert "--metric-goal 'wer drop<=X'" in rule.reason
    assert not [r for r in judge(other, GatePolicy(max_drop={"wer": "off"})).rules if "drop" in r.rule]


def test_a_rule_is_switched_off_by_its_name_but_never_the_layout() -> None:
    names = {r.rule for r in judge(make_report(), GatePolicy(off=("parity", "coverage"))).rules}
    assert names.isdisjoint({"parity", "coverage"})
    with pytest.raises(ValueError, match="layout"):
        GatePolicy(off=("layout",))
    with pytest.raises(ValueError, match="coverage"):
        GatePolicy(off=("coverag",))


def test_a_difference_that_rounding_explains_passes_with_its_reason() -> None:
    report = make_report()
    row = ParityRow(output="y", batch=1, max_abs=1e-9, relative_l2=6e-2, rounding=2e-2)
    excused = with_variant(report, parity=Parity(provider="cpu", rows=(row,)))
    (rule,) = (r for r in judge(excused, GatePolicy()).rules if r.rule == "parity")
    assert (rule.verdict, "rounding alone" in rule.reason) == ("pass", True)
    plain = with_variant(report, parity=Parity(provider="cpu", rows=(row.model_copy(update={"rounding": 1e-3}),)))
    assert {r.rule: r.verdict for r in judge(plain, GatePolicy()).rules}["parity"] == "fail"


@pytest.mark.parametrize("limit", [1.0, "1%", None])
def test_a_goal_does_not_silently_replace_the_one_limit_of_a_policy(limit: float | str | None) -> None:
    with pytest.raises(UsageError, match="both say") as caught:
        with_goals(GatePolicy(max_drop=limit), ["top5 drop<=3"])
    assert caught.value.fix
    assert with_goals(GatePolicy(max_drop=limit), ["top1>=0.5"]).max_drop == limit


def test_agreement_has_no_relative_limit_that_could_be_passed_over() -> None:
    with pytest.raises(ValueError, match="agreement"):
        GatePolicy.model_validate({"agreement": {"cosine": "1%"}})
