"""Checkpoint files: formats, training dicts, prefixes, damage, pickles."""

import argparse
import json
import os
import pathlib
import re
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from snowsdeploy.errors import SourceError
from snowsdeploy.models.checkpoint import StateDict, read_checkpoint
from snowsdeploy.models.formats import FileFormat, detect_format
from snowsdeploy.models.weights import load_weights

TENSORS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


def read(path: Path, *, allow_pickle: bool = False):
    return read_checkpoint(path, detect_format(path), allow_pickle=allow_pickle)


def assert_tensors(state: dict[str, torch.Tensor]) -> None:
    assert set(state) == set(TENSORS)
    for name, value in TENSORS.items():
        torch.testing.assert_close(state[name], value)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in TENSORS.items()}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3},
        {"model": TENSORS, "optimizer": {"lr": 0.1}},
        {"state_dict": prefixed("module.")},
        {"state_dict": prefixed("_orig_mod.")},
        {"state_dict": prefixed("_orig_mod.module.")},
        {"state_dict": prefixed("module._orig_mod.")},
        {"model_ema": {"n_averaged": torch.tensor(5), **prefixed("module.")}},
        {"state_dict": TENSORS, "args": argparse.Namespace(lr=0.1)},
    ],
    ids=lambda content: "+".join(content)[:40],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_training_dicts(tmp_path, content, legacy):
    path = tmp_path / "model.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert_tensors(read(path).state_dict)


def test_a_prefix_that_only_some_keys_have_is_part_of_the_name(tmp_path):
    torch.save({"module.a": torch.ones(1), "head": torch.ones(1)}, tmp_path / "m.pt")
    assert set(read(tmp_path / "m.pt").state_dict) == {"module.a", "head"}


def test_key_order_is_timms(tmp_path):
    keys = ("model", "state_dict", "model_ema", "state_dict_ema")
    torch.save({key: {"w": torch.tensor(float(i))} for i, key in enumerate(keys)}, tmp_path / "m.pt")
    assert read(tmp_path / "m.pt").state_dict["w"] == 3
    torch.save({key: {"w": torch.tensor(float(i))} for i, key in enumerate(keys[:2])}, tmp_path / "m.pt")
    assert read(tmp_path / "m.pt").state_dict["w"] == 1


def test_arch_is_kept(tmp_path):
    torch.save({"arch": "resnet18", "state_dict": TENSORS}, tmp_path / "m.pt")
    assert read(tmp_path / "m.pt").arch == "resnet18"


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_safetensors_by_content(tmp_path, name):
    safetensors.torch.save_file(TENSORS, tmp_path / name)
    assert detect_format(tmp_path / name) is FileFormat.SAFETENSORS
    assert_tensors(read(tmp_path / name).state_dict)


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def truncated_copy(tmp_path: Path, keep: float, *, legacy: bool = False) -> Path:
    path = tmp_path / "cut.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def make_damaged(tmp_path: Path, case: str) -> Path:
    path = tmp_path / "model.pth"
    if case == "directory":
        path.mkdir()
    elif case.startswith("cut"):
        return truncated_copy(tmp_path, 0.5, legacy="legacy" in case)
    elif case == "torchscript":
        write_zip(path, {"a/constants.pkl": b"", "a/code/x.py": b"", "a/data.pkl": b""})
    elif case == "old pt2":
        write_zip(path, {"version": b"8.1", "serialized_exported_program.json": b"{}"})
    elif case.startswith("safetensors"):
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(TENSORS, path)
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        damaged = {
            "cut": data[:-4],
            "cut header": data[:20],
            "bad header": data[:8] + b"[" * length + data[8 + length :],
        }
        path.write_bytes(damaged[case.removeprefix("safetensors ")])
    else:
        content = {
            "empty": b"",
            "text": b"hello, this is no checkpoint",
            "html": b"<!DOCTYPE html><html>",
            "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        }
        path.write_bytes(content[case])
    return path


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("directory", "is a directory"),
        ("empty", "is empty"),
        ("text", "truncated or damaged"),
        ("html", "truncated or damaged"),
        ("lfs", "Git LFS pointer"),
        ("torchscript", "pass the original checkpoint"),
        ("old pt2", "torch 2.7 or older"),
        ("cut", "truncated or damaged"),
        ("cut legacy", "truncated or damaged"),
        ("safetensors cut", "truncated or damaged"),
        ("safetensors cut header", "truncated or damaged"),
        ("safetensors bad header", "header cannot be read"),
    ],
)
def test_damaged_files_give_one_message(tmp_path, case, message):
    with pytest.raises(SourceError, match=message):
        read(make_damaged(tmp_path, case))


def test_missing_file(tmp_path):
    with pytest.raises(SourceError, match="does not exist") as caught:
        read(tmp_path / "none.pth")
    assert "none.pth" in str(caught.value.seen)


def test_unreadable_file(tmp_path, monkeypatch):
    torch.save(TENSORS, tmp_path / "m.pth")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path / "m.pth")


@pytest.mark.parametrize("keep", [0.02, 0.2, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("legacy", [False, True])
def test_truncation_anywhere_is_a_source_error(tmp_path, keep, legacy):
    with pytest.raises(SourceError):
        read(truncated_copy(tmp_path, keep, legacy=legacy))


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), {"epoch": 1}, {}])
def test_not_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(SourceError, match="holds no state dict"):
        read(tmp_path / "m.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_runs_nothing_and_names_the_global(tmp_path, legacy):
    path, target = tmp_path / "m.pt", tmp_path / "made"
    torch.save({"state_dict": TENSORS, "x": Payload(str(target))}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(SourceError, match="run code") as caught:
        read(path)
    assert "mkdir" in str(caught.value.seen)
    assert "--allow-pickle" in str(caught.value.fix)
    assert not target.exists()
    assert_tensors(read(path, allow_pickle=True).state_dict)
    assert target.exists()


def test_pickled_module(tmp_path):
    torch.save(nn.Linear(3, 2), tmp_path / "m.pt")
    with pytest.raises(SourceError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read(tmp_path / "m.pt")
    assert isinstance(read(tmp_path / "m.pt", allow_pickle=True).module, nn.Linear)
    torch.save({"model": nn.Linear(3, 2), "epoch": 1}, tmp_path / "m.pt")
    assert isinstance(read(tmp_path / "m.pt", allow_pickle=True).module, nn.Linear)


def test_pickled_module_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "own_net_7.py").write_text("from torch import nn\nclass Net(nn.Linear): pass\n")
    monkeypatch.chdir(tmp_path)
    code = "import own_net_7, torch; torch.save(own_net_7.Net(3, 2), 'm.pt')"
    monkeypatch.syspath_prepend(tmp_path)
    exec(code, {})
    monkeypatch.delitem(sys.modules, "own_net_7")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    assert type(read(tmp_path / "m.pt", allow_pickle=True).module).__name__ == "Net"
    monkeypatch.delitem(sys.modules, "own_net_7")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="needs Python code that is not here"):
        read(tmp_path / "m.pt", allow_pickle=True)


def test_keys_that_do_not_fit_are_named_and_shortened():
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    state = {"other": torch.ones(1), "0.weight": torch.ones(3, 2)}
    with pytest.raises(SourceError, match="do not fit the architecture mine") as caught:
        load_weights(module, [StateDict("", state)], "mine")
    seen = str(caught.value.seen)
    assert "9 missing: 0.bias, 1.weight, 1.bias, 2.weight, +5 more" in seen
    assert "1 unexpected: other" in seen
    assert "0.weight (3, 2), not (2, 2)" in seen


def test_the_batch_counter_may_be_missing():
    norm = nn.BatchNorm2d(2)
    state = {k: v + 1 for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
    load_weights(norm, [StateDict("", state)], "norm")
    assert norm.weight[0] == 2


def test_half_precision_weights_become_float32_in_the_module():
    module = nn.Linear(3, 2)
    load_weights(module, [StateDict("", {k: v.half() for k, v in module.state_dict().items()})], "linear")
    assert module.weight.dtype == torch.float32


def test_a_header_that_is_json_but_no_safetensors(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(SourceError, match="truncated or damaged"):
        read(tmp_path / "m.safetensors")


class Home:
    """A path as Windows pickles it."""

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return pathlib.WindowsPath, ("C:", "runs")


class Raises:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return _fail, ("no licence",)


def _fail(text: str) -> None:
    raise ArithmeticError(text)


def test_a_path_of_windows_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "win.pt"
    torch.save({"model": {"weight": torch.ones(2)}, "args": Home()}, path)
    with pytest.raises(SourceError, match="would run code"):
        read_checkpoint(path, FileFormat.PICKLE, allow_pickle=False)
    (state,) = read_checkpoint(path, FileFormat.PICKLE, allow_pickle=True).state_dicts
    assert (state.key, list(state.tensors)) == ("model", ["weight"])
    assert pathlib.WindowsPath is not pathlib.PureWindowsPath


def test_what_a_pickles_code_raises_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "code.pt"
    torch.save({"model": {"weight": torch.ones(2)}, "args": Raises()}, path)
    with pytest.raises(SourceError, match="code that the pickle runs raised ArithmeticError") as caught:
        read_checkpoint(path, FileFormat.PICKLE, allow_pickle=True)
    assert re.search(r"no licence \(at .*test_checkpoints.py:\d+\)", str(caught.value.seen))
