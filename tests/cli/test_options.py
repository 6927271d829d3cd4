"""Texts of options, the TOML twin, and who wins."""

from __future__ import annotations

import pytest
from snowsdeploy_cli.options import command_line, parse_options

from snowsdeploy.errors import UsageError
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings

NEEDED = {"model": "m.pt", "data": "d.npz", "out": "run"}


def test_lists_pairs_and_sizes_are_read():
    parsed = parse_options(
        {
            "mean": "0.1,0.2,0.3",
            "latency_batch": ["1,8", "32"],
            "input_size": "3,224,192",
            "model_arg": ["num_classes=10", "act=relu", "x=(1, 2)"],
            "include": [],
            "seed": None,
        }
    )
    assert parsed == {
        "mean": (0.1, 0.2, 0.3),
        "latency_batch": (1, 8, 32),
        "input_size": (3, 224, 192),
        "model_arg": {"num_classes": 10, "act": "relu", "x": (1, 2)},
    }


def test_two_sizes_mean_three_channels():
    assert parse_options({"input_size": "224x192"}) == {"input_size": (3, 224, 192)}


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("mean", "0.1;0.2", "--mean"),
        ("std", "", "--std"),
        ("input_size", "224", "--input-size"),
        ("input_size", "3,2,2,2", "--input-size"),
        ("latency_batch", ["1,x"], "--latency-batch"),
        ("model_arg", ["num_classes"], "--model-arg"),
        ("model_arg", ["a b=1"], "--model-arg"),
    ],
)
def test_unreadable_texts_name_their_option(option, value, name):
    with pytest.raises(UsageError, match=name) as caught:
        parse_options({option: value})
    assert caught.value.seen is not None
    assert caught.value.allowed


def test_options_win_over_toml_and_toml_over_defaults(tmp_path):
    file = tmp_path / "snowsdeploy.toml"
    file.write_text('samples = 64\nseed = 7\nexclude = ["head*"]\nmean = [0.5, 0.5, 0.5]\n')
    config = read_settings(MainJob, {**NEEDED, "seed": 3}, file)
    assert (config.samples, config.seed, config.cg_steps) == (64, 3, MainJob.model_fields["cg_steps"].default)
    assert config.exclude == ("head*",)
    assert config.mean == (0.5, 0.5, 0.5)


def test_toml_alone_can_hold_what_must_be_given(tmp_path):
    file = tmp_path / "snowsdeploy.toml"
    file.write_text('data = "d.npz"\nout = "run"\n')
    assert read_settings(MainJob, {"model": "m.pt"}, file).data == "d.npz"


def test_one_toml_serves_the_stages_too(tmp_path):
    file = tmp_path / "snowsdeploy.toml"
    file.write_text("samples = 64\nlatency_runs = 9\n")
    assert read_settings(ValidateSettings, {}, file).latency_runs == 9


def test_unknown_key_names_the_closest_known_one(tmp_path):
    file = tmp_path / "snowsdeploy.toml"
    file.write_text("sample = 64\n")
    with pytest.raises(UsageError, match="unknown key") as caught:
        read_settings(MainJob, NEEDED, file)
    assert caught.value.seen == "sample"
    assert caught.value.fix == "did you mean samples?"


@pytest.mark.parametrize("text", ["samples = ", "\xff"])
def test_broken_toml_is_an_error(tmp_path, text):
    file = tmp_path / "snowsdeploy.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="not valid TOML"):
        read_settings(MainJob, NEEDED, file)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(UsageError) as caught:
        read_settings(MainJob, {**NEEDED, "seed": -1, "targets": "sparse", "std": (0.0, 1.0, 1.0)})
    text = str(caught.value)
    for part in ("--seed", "--targets", "--std", "sparse", "'dense', 'input' or 'auto'", "above 0"):
        assert part in text


def test_missing_values_are_named():
    with pytest.raises(UsageError, match="--data, --out must be given"):
        read_settings(MainJob, {"model": "m.pt"})


def test_command_is_recorded_so_that_a_shell_can_repeat_it():
    assert command_line(["prune-export", "a b.pt", "x[0::2]"]) == "snowsdeploy prune-export 'a b.pt' 'x[0::2]'"


@pytest.mark.parametrize(("text", "value"), [("block", "block"), ("model", "model"), ("0", 0), ("12", 12)])
def test_horizon_is_a_number_or_block(text, value):
    assert read_settings(MainJob, {**NEEDED, "horizon": text}).horizon == value


@pytest.mark.parametrize("text", ["-1", "half"])
def test_horizon_is_nothing_else(text):
    with pytest.raises(UsageError, match="--horizon") as caught:
        read_settings(MainJob, {**NEEDED, "horizon": text})
    assert caught.value.seen == text
    assert "'block'" in str(caught.value.allowed)


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("0.25", 0.25), ("1", 1.0)])
def test_targets_are_a_name_or_a_share(text, value):
    assert read_settings(MainJob, {**NEEDED, "targets": text, "held_back": 0.1}).targets == value


def test_auto_targets_need_held_back_images():
    with pytest.raises(UsageError, match="--targets auto needs images") as caught:
        read_settings(MainJob, {**NEEDED, "targets": "auto"})
    assert "--held-back" in str(caught.value)


def test_effort_sets_what_is_not_given(tmp_path):
    assert read_settings(MainJob, {**NEEDED, "effort": "fast"}).horizon == 0
    assert read_settings(MainJob, {**NEEDED, "effort": "fast", "horizon": "block"}).horizon == "block"
    assert read_settings(MainJob, {**NEEDED, "effort": "max"}).final_steps > 0
    file = tmp_path / "snowsdeploy.toml"
    file.write_text('effort = "max"\nfinal_steps = 7\n')
    config = read_settings(MainJob, NEEDED, file)
    assert (config.final_steps, config.variables) == (7, "all")


def test_a_solver_sets_what_is_not_given():
    fast, k0 = (read_settings(MainJob, {**NEEDED, **o}) for o in ({"effort": "fast"}, {"solver": "k0"}))
    assert fast.model_copy(update={"effort": k0.effort}) == k0
    assert (k0.horizon, k0.newton_steps, k0.joint) == (0, 0, False)
    none = read_settings(MainJob, {**NEEDED, "effort": "max", "solver": "none"})
    assert (none.newton_steps, none.final_steps, none.sensitivity) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"selector": "oracle"}, "--selector is not known"),
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
def test_options_that_contradict_each_other_are_refused(given, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_settings(MainJob, NEEDED | given)
    assert caught.value.seen
    assert caught.value.fix or caught.value.allowed


def test_settings_that_fit_are_taken():
    given = {"selector": "woodfisher", "selector_arg": {"gradients": 400}, "pattern": "90%", "mask_steps": 5}
    assert read_settings(MainJob, NEEDED | given).threshold == "method"
    assert read_settings(MainJob, NEEDED | {"selector": "wanda", "threshold": "global", "pattern": "80%"})
    assert read_settings(MainJob, NEEDED | {"pattern": "99.5%", "selector": "magnitude"})
    assert parse_options({"selector_arg": ["damping=1e-4", "batch=2"]}) == {
        "selector_arg": {"damping": 1e-4, "batch": 2}
    }


def test_a_precision_that_cannot_be_verified_says_why_and_what_to_use():
    with pytest.raises(UsageError, match="--precision bf16 is not offered") as caught:
        read_settings(MainJob, {**NEEDED, "precision": ("fp32", "bf16")})
    assert "no bfloat16 Conv, MatMul or Gemm" in str(caught.value)
    assert "use fp16" in str(caught.value)


def test_a_refused_item_is_the_only_complaint():
    with pytest.raises(UsageError, match="--precision") as caught:
        read_settings(MainJob, {**NEEDED, "precision": ("fp8",)})
    assert caught.value.seen == "fp8"
    assert caught.value.allowed == "'fp32', 'fp16' or 'int8'"


def test_an_empty_list_is_refused_too():
    with pytest.raises(UsageError, match="--format") as caught:
        read_settings(MainJob, {**NEEDED, "format": ()})
    assert "at least 1 item" in str(caught.value)


def test_formats_are_a_list():
    assert parse_options({"format": ["onnx,torch", "triton"]}) == {"format": ("onnx", "torch", "triton")}
    with pytest.raises(UsageError, match="--format") as caught:
        read_settings(MainJob, {**NEEDED, "format": ("coreml",)})
    assert "'tensorrt'" in str(caught.value)
