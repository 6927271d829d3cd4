"""Settings: texts become values, TOML and options are laid over one another, presets set what is not given."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from snowsdeploy.errors import UsageError
from snowsdeploy.pruning.plan import make_selection
from snowsdeploy.settings.base import PANELS, Option
from snowsdeploy.settings.jobs import CompareJob, MainJob, PlanJob, PruneJob, ValidateJob
from snowsdeploy.settings.policy import GatePolicy
from snowsdeploy.settings.presets import resolve
from snowsdeploy.settings.profile import ProfileSettings
from snowsdeploy.settings.prune import PruneSettings, solver_facts
from snowsdeploy.settings.read import load_policy, read_file, read_settings
from snowsdeploy.settings.reference import json_schema, reference_page
from snowsdeploy.settings.write import config_toml, effective
from tests.sample_report import make_report

REPOSITORY = Path(__file__).resolve().parents[2]
NEEDED = {"model": "m.pt", "data": "d.npz", "out": "run"}
KINDS = (MainJob, PruneJob, PlanJob, CompareJob, ValidateJob, ProfileSettings)


def read(**options: object) -> MainJob:
    return read_settings(MainJob, NEEDED | options)


def resolved(**options: object) -> MainJob:
    return resolve(read(**options))


def test_lists_pairs_and_sizes_are_read_from_texts_and_from_values() -> None:
    texts = read(
        mean="0.1,0.2,0.3",
        latency_batch=["1,8", "32"],
        input_size="3,224,192",
        model_arg=["num_classes=10", "act=relu", "x=(1, 2)"],
        selector_arg=["damping=1e-4", "batch=2"],
        precision="fp32,int8",
        format=["onnx,torch", "triton"],
        include="layer1.*",
        provider_option={"a": True, "b": 2},
    )
    assert (texts.mean, texts.latency_batch, texts.input_size) == ((0.1, 0.2, 0.3), (1, 8, 32), (3, 224, 192))
    assert texts.model_arg == {"num_classes": 10, "act": "relu", "x": (1, 2)}
    assert texts.selector_arg == {"damping": 1e-4, "batch": 2}
    assert (texts.precision, texts.format) == (("fp32", "int8"), ("onnx", "torch", "triton"))
    assert texts.include == ("layer1.*",)
    assert texts.provider_option == {"a": "1", "b": "2"}
    assert read(mean=[0.1, 0.2, 0.3], input_size=(3, 224, 192)).mean == texts.mean
    assert read(input_size="224x192").input_size == (3, 224, 192)


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("mean", "0.1;0.2", "--mean"),
        ("std", "", "--std"),
        ("input_size", "224", "--input-size"),
        ("input_size", "3,2,2,2", "--input-size"),
        ("input_size", "3,0,8", "--input-size"),
        ("latency_batch", ["1,x"], "--latency-batch"),
        ("model_arg", ["num_classes"], "--model-arg"),
        ("model_arg", ["a b=1"], "--model-arg"),
        ("metadata", ["names"], "--metadata"),
        ("metadata", {"snowsdeploy.pattern": "2:4"}, "--metadata"),
        ("metadata", {"": "2:4"}, "--metadata"),
    ],
)
def test_unreadable_texts_name_their_option(option: str, value: object, name: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        read(**{option: value})
    assert caught.value.seen is not None
    assert caught.value.allowed


def test_options_win_over_toml_and_toml_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "snowsdeploy.toml"
    file.write_text('samples = 64\nseed = 7\nexclude = ["head*"]\nmean = [0.5, 0.5, 0.5]\n')
    config = read_settings(MainJob, {**NEEDED, "seed": 3}, file)
    assert (config.samples, config.seed, config.cg_steps) == (64, 3, MainJob.model_fields["cg_steps"].default)
    assert config.exclude == ("head*",)
    assert config.mean == (0.5, 0.5, 0.5)


def test_toml_alone_can_hold_what_must_be_given(tmp_path: Path) -> None:
    file = tmp_path / "snowsdeploy.toml"
    file.write_text('model = "m.pt"\ndata = "d.npz"\nout = "run"\n')
    assert read_settings(MainJob, {}, file).data == "d.npz"


def test_one_toml_serves_all_commands(tmp_path: Path) -> None:
    file = tmp_path / "snowsdeploy.toml"
    file.write_text("samples = 64\nlatency_runs = 9\nruns = 20\n\n[gate]\nmin.top1 = 0.5\n")
    assert read_settings(ValidateJob, {}, file).latency_runs == 9
    assert read_settings(ProfileSettings, {}, file).runs == 20
    policy = read_file(file).policy
    assert policy is not None
    assert policy.min == {"top1": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("samples = ", "not valid TOML"),
        ("\xff", "not valid TOML"),
        ("sample = 64\n", "unknown key"),
        ('policy = "p.toml"\n[gate]\n', "two policies"),
        ("[gate]\nmin_topp1 = 1\n", "unknown key"),
        ("[gate]\nmin_coverage = 2\n", "out of range"),
        ("gate = 3\n", "gate is not a table"),
    ],
)
def test_a_file_that_cannot_be_meant_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "snowsdeploy.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message) as caught:
        read_settings(MainJob, NEEDED, file)
    assert caught.value.seen


def test_unknown_names_come_with_the_closest_known_one(tmp_path: Path) -> None:
    file = tmp_path / "snowsdeploy.toml"
    file.write_text("sample = 64\n")
    with pytest.raises(UsageError, match="unknown key") as caught:
        read_settings(MainJob, NEEDED, file)
    assert (caught.value.seen, caught.value.fix) == ("sample", "did you mean samples?")
    with pytest.raises(UsageError, match="no such setting") as caught:
        read(newton_step=2)
    assert caught.value.fix == "did you mean newton_steps?"


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        read(seed=-1, targets="sparse", std=(0.0, 1.0, 1.0))
    text = str(caught.value)
    for part in ("--seed", "--targets", "--std", "sparse", "'dense', 'input' or 'auto'", "above 0"):
        assert part in text


def test_missing_values_are_named() -> None:
    with pytest.raises(UsageError, match="--data, --out must be given"):
        read_settings(MainJob, {"model": "m.pt"})


@pytest.mark.parametrize(("text", "value"), [("block", "block"), ("model", "model"), ("0", 0), ("12", 12)])
def test_horizon_is_a_number_or_block(text: str, value: object) -> None:
    assert read(horizon=text).horizon == value


@pytest.mark.parametrize("text", ["-1", "half"])
def test_horizon_is_nothing_else(text: str) -> None:
    with pytest.raises(UsageError, match="--horizon") as caught:
        read(horizon=text)
    assert caught.value.seen == text
    assert "'block'" in str(caught.value.allowed)


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("0.25", 0.25), ("1", 1.0)])
def test_targets_are_a_name_or_a_share(text: str, value: object) -> None:
    assert read(targets=text, held_back=0.1).targets == value


def test_auto_targets_need_held_back_images() -> None:
    with pytest.raises(UsageError, match="--targets auto needs images") as caught:
        read(targets="auto")
    assert "--held-back" in str(caught.value)


def test_effort_sets_what_is_not_given(tmp_path: Path) -> None:
    assert resolved(effort="fast").horizon == 0
    assert resolved(effort="fast", horizon="block").horizon == "block"
    assert resolved(effort="max").final_steps > 0
    file = tmp_path / "snowsdeploy.toml"
    file.write_text('effort = "max"\nfinal_steps = 7\n')
    config = resolve(read_settings(MainJob, NEEDED, file))
    assert (config.final_steps, config.variables) == (7, "all")


def test_a_solver_sets_what_is_not_given() -> None:
    fast, k0 = resolved(effort="fast"), resolved(solver="k0")
    assert fast.model_dump() == k0.model_dump() | {"effort": "fast"}
    assert (k0.horizon, k0.newton_steps, k0.joint) == (0, 0, False)
    none = resolved(effort="max", solver="none")
    assert (none.newton_steps, none.final_steps, none.sensitivity) == (0, 0, 0.0)


def test_resolving_twice_changes_nothing() -> None:
    for effort in ("fast", "default", "max"):
        once = resolved(effort=effort)
        assert resolve(once) == once


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"selector": "oracle"}, "--selector cannot have this value"),
        ({"selector": "wanda", "selector_arg": {"damping": 1}}, "--selector-arg is not a setting of wanda"),
        ({"threshold": "global"}, "--threshold is for unstructured patterns"),
        ({"threshold": "global", "pattern": "90%"}, "--threshold global needs a score for each weight"),
        ({"threshold": "row", "pattern": "90%", "selector": "obc"}, "--threshold row needs a score for each weight"),
        ({"mask_steps": 2}, "--mask-steps is for selectors that read the loss"),
        ({"labels": "sampled"}, "--labels is for selectors that read the loss"),
        ({"selector": "obd", "pattern": "99.5%"}, "--layer-cap is below the share of zeros"),
        ({"solver": "none", "newton_steps": 2}, "--solver none applies masks and nothing else"),
        ({"solver": "none", "final_steps": 1}, "--solver none applies masks and nothing else"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make_selection(resolved(**given))
    assert caught.value.seen
    assert caught.value.fix or caught.value.allowed


def test_settings_that_fit_are_taken() -> None:
    fisher = {"selector": "woodfisher", "selector_arg": {"gradients": 400}, "pattern": "90%", "mask_steps": 5}
    for options in (
        fisher,
        {"selector": "wanda", "threshold": "global", "pattern": "80%"},
        {"pattern": "99.5%", "selector": "magnitude"},
    ):
        assert make_selection(resolved(**options)).selector


def test_a_precision_that_cannot_be_verified_says_why_and_what_to_use() -> None:
    for text in (("fp32", "bf16"), "fp32,bf16"):
        with pytest.raises(UsageError, match="--precision bf16 is not offered") as caught:
            read(precision=text)
        assert "no bfloat16 Conv, MatMul or Gemm" in str(caught.value)
        assert "use fp16" in str(caught.value)


def test_a_refused_item_is_the_only_complaint() -> None:
    with pytest.raises(UsageError, match="--precision") as caught:
        read(precision=("fp8",))
    assert caught.value.seen == "fp8"
    assert caught.value.allowed == "'fp32', 'fp16' or 'int8'"


def test_an_empty_list_is_refused_too() -> None:
    with pytest.raises(UsageError, match="--format") as caught:
        read(format=())
    assert "at least 1 item" in str(caught.value)


def test_formats_are_those_that_have_a_writer() -> None:
    with pytest.raises(UsageError, match="--format") as caught:
        read(format=("coreml",))
    assert caught.value.allowed == "onnx, tensorrt, triton, torch"


def test_every_field_has_a_sentence_and_a_panel() -> None:
    for kind in (*KINDS, GatePolicy):
        for name, field in kind.model_fields.items():
            text = field.description or ""
            assert text[:1].isupper(), name
            assert text.endswith("."), name
            assert len(text.split()) > 3, name
            if kind is not GatePolicy:
                (option,) = [m for m in field.metadata if isinstance(m, Option)]
                assert option.panel in PANELS


def test_settings_are_frozen_and_know_no_other_names() -> None:
    with pytest.raises(ValidationError):
        read().seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        PruneSettings.model_validate({"newton": 2})


def test_the_solvers_own_settings_are_what_reports_show() -> None:
    facts = solver_facts(PruneSettings())
    assert {"effort", "newton_steps", "horizon", "batch_size", "products"} <= facts.keys()
    assert facts.keys().isdisjoint({"pattern", "selector", "seed", "include"})


values = {
    "model_arg": st.dictionaries(
        st.from_regex(r"[a-z]{1,5}", fullmatch=True),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text("ab'\"\\\n", max_size=4),
        max_size=3,
    ),
    "mean": st.none() | st.tuples(*[st.floats(0, 1)] * 3),
    "memory": st.none() | st.integers(1, 2**40),
    "exclude": st.lists(st.text("ab*?.[", min_size=1, max_size=5), max_size=2).map(tuple),
    "targets": st.sampled_from(["dense", "input"]) | st.floats(0, 1),
    "top_k": st.none() | st.integers(1, 5),
    "effort": st.sampled_from(["fast", "default", "max"]),
    "permute": st.none() | st.booleans(),
    "provider_option": st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text("a1", max_size=3)),
}


@hypothesis_settings(deadline=None, max_examples=60)
@given(options=st.fixed_dictionaries({}, optional=values))
def test_effective_settings_come_back_from_their_file(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, object]
) -> None:
    before = resolved(**options)
    policy = GatePolicy(max_drop=None, min_found={"fp16": 0.5})
    file = tmp_path_factory.mktemp("config") / "config.toml"
    file.write_text(config_toml(effective(before), policy, {"torch": "2.0"}), encoding="utf-8")
    content = read_file(file)
    after = resolve(read_settings(MainJob, {"out": "run"}, content))
    assert after.model_dump() == before.model_dump()
    assert config_toml(effective(after), policy, {"torch": "2.0"}) == file.read_text(encoding="utf-8")
    assert content.policy == policy
    assert content.versions == {"torch": "2.0"}


def test_paths_that_exist_are_absolute_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    written = effective(read(data="images[0::2]", model="package.nets:make", eval_data="torch/cifar10")).values
    assert written["data"] == f"{tmp_path.resolve() / 'images'}[0::2]"
    assert (written["model"], written["eval_data"]) == ("package.nets:make", "torch/cifar10")


def test_off_switches_a_rule_off(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[gate]\nmax_drop = "off"\nmax_parity_error = "off"\n')
    policy = load_policy(file)
    assert policy.max_drop is None
    assert policy.parity_limit("fp32") is None
    file.write_text('[gate]\nmax_drop = "none"\n')
    with pytest.raises(UsageError, match="out of range"):
        load_policy(file)


@pytest.mark.parametrize("name", ["settings", "policy", "report"])
def test_schemas_describe_what_is_written(name: str) -> None:
    schema = json.loads(json_schema(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    contents = {
        "settings": (
            tomllib.loads(config_toml(effective(resolved()), GatePolicy(max_drop=None), {"torch": "2.0"})),
            tomllib.loads('include = "layer1.*"\nmean = "0.1,0.2,0.3"\nlatency_batch = 8\nmodel_arg = ["x=1"]'),
            {"selectors": ["wanda"], "input_size": "224x224", "sparsity_off": True},
        ),
        "policy": (
            {"gate": GatePolicy().model_dump(mode="json")},
            {"gate": {"max_drop": "off", "max_parity_error": "off"}},
        ),
        "report": (json.loads(make_report().model_dump_json()),),
    }[name]
    for content in contents:
        jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"no_such_key": 1}, schema)


def test_an_effort_above_a_repeated_run_decides_again(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(config_toml(effective(resolved(effort="fast")), GatePolicy(), {}), encoding="utf-8")
    content = read_file(file)
    assert content.resolved["newton_steps"] == 0
    assert "newton_steps" not in content.values
    assert resolve(read_settings(MainJob, {"out": "again"}, content)).newton_steps == 0
    assert resolve(read_settings(MainJob, {"out": "again", "effort": "max"}, content)).newton_steps == 2
    assert resolve(read_settings(MainJob, {"out": "again", "newton_steps": 1}, content)).newton_steps == 1


def test_what_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    options = {"model": "<Net in memory>", "data": "<Tensor in memory>", "model_arg": {"a": 1, "b": object()}}
    text = config_toml(effective(read(**options)), GatePolicy(), {})
    (tmp_path / "config.toml").write_text(text)
    content = read_file(tmp_path / "config.toml")
    assert not {"model", "data"} & content.values.keys()
    assert content.values["model_arg"] == ["a=1"]
    assert "given again" in text.splitlines()[0]


def test_the_reference_page_is_that_of_these_settings() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == reference_page(), "write it again: snowsdeploy schema settings --markdown > docs/settings.md"
    for kind in KINDS:
        for name in kind.model_fields:
            assert f"`{name}`" in page
