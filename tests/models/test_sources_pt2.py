"""`.pt2` programs: ordinary ones load, those that could run code do not."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from snowsdeploy.errors import SourceError, UsageError
from snowsdeploy.models.plain_expression import is_plain_expression
from snowsdeploy.models.pt2 import read_pt2
from snowsdeploy.models.pt2_safety import find_code
from snowsdeploy.models.source import ModelRequest, load_model

MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"


def rewrite(path: Path, changes: dict[str, bytes]) -> None:
    """Replace or add members of an archive, whose members lie below one folder."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(members)).split("/")[0]
    members |= {f"{folder}/{name}": data for name, data in changes.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def edit_json(path: Path, edit, member: str = MODEL) -> None:
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(member))
        content = json.loads(archive.read(name))
    edit(content)
    rewrite(path, {member: json.dumps(content).encode()})


@pytest.fixture
def plain(tmp_path) -> Path:
    """What a user's torch.export.save leaves."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(approximate="tanh"), nn.Flatten(), nn.Linear(144, 5)).eval()
    dynamic = ({0: Dim("batch", min=1)},)
    exported = torch.export.export(net, (torch.randn(2, 3, 8, 8),), dynamic_shapes=dynamic)
    torch.export.save(exported, tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_users_program_loads(plain):
    loaded = load_model(ModelRequest(str(plain)))
    assert isinstance(loaded.model, ExportedProgram)
    assert loaded.source.format == "pt2"
    assert loaded.preprocessing is None
    assert loaded.model.module()(torch.randn(4, 3, 8, 8)).shape == (4, 5)


def test_own_programs_bring_their_preprocessing(tiny, tmp_path):
    tiny.save(tmp_path / "p.pt2")
    saved = read_pt2(tmp_path / "p.pt2")
    assert saved.preprocessing == tiny.preprocessing
    assert saved.signature == tiny.signature
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(saved.exported.module()(x), tiny.run(x)[0])


def test_arch_is_refused(plain):
    with pytest.raises(UsageError, match="--arch"):
        load_model(ModelRequest(str(plain), arch="resnet18"))


def set_target(content) -> None:
    content["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"


def set_size(content) -> None:
    sizes = next(iter(content["graph_module"]["graph"]["tensor_values"].values()))["sizes"]
    sizes[0] = {"as_expr": {"expr_str": "__import__('os').getpid()", "hint": None}}


def set_guard(content) -> None:
    content["guards_code"] = ["__import__('os').getpid() > 0"]


def set_name(content) -> None:
    content["graph_module"]["graph"]["inputs"][0] = {"as_tensor": {"name": "x=print(1)"}}


def set_context(content) -> None:
    spec = json.dumps([1, {"type": "builtins.dict", "context": '[{"__enum__": 1, "fqn": "os", "name": "x"}]'}])
    content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (set_target, "the target 'torch.os.system'"),
        (set_size, "the expr_str"),
        (set_guard, "the guards_code"),
        (set_name, "the name 'x=print\\(1\\)'"),
        (set_context, "the in_spec"),
    ],
)
def test_graphs_that_could_run_code(plain, edit, found):
    edit_json(plain, edit)
    with pytest.raises(SourceError, match=found) as caught:
        load_model(ModelRequest(str(plain)))
    assert "--allow-pickle" in str(caught.value.fix)


def test_pickled_tensors(plain):
    def edit(content):
        next(iter(content["config"].values()))["use_pickle"] = True

    edit_json(plain, edit, "data/weights/model_weights_config.json")
    with pytest.raises(SourceError, match="pickled tensors"):
        read_pt2(plain)


@pytest.mark.parametrize(
    "member",
    [
        "data/aotinductor/model/x.so",
        "data/constants/opaque_obj_0",
        "data/constants/custom_obj_0",
        "data/weights/model.pt",
    ],
)
def test_members_that_could_run_code(plain, member):
    rewrite(plain, {member: b"x"})
    with pytest.raises(SourceError, match=f"the member {member}"):
        read_pt2(plain)


def test_sample_inputs_run_nothing_unless_allowed(plain, tmp_path):
    """torch.export.load alone would run this pickle: that is what the check is for."""
    torch.save(((Touch(tmp_path / "ran"),), {}), tmp_path / "samples.pt")
    rewrite(plain, {SAMPLES: (tmp_path / "samples.pt").read_bytes()})
    with pytest.raises(SourceError, match="sample inputs that are pickled objects"):
        read_pt2(plain)
    assert not (tmp_path / "ran").exists()
    read_pt2(plain, allow_pickle=True)
    assert (tmp_path / "ran").exists()


def test_guards_are_executed_by_torch(plain, tmp_path):
    """Why guards are checked: a program runs its guards' text as Python."""
    ran = tmp_path / "ran"

    def edit(content):
        content["guards_code"] = [f"__import__('pathlib').Path({str(ran)!r}).touch() is None"]

    edit_json(plain, edit)
    exported = read_pt2(plain, allow_pickle=True).exported
    exported.module()(torch.randn(1, 3, 8, 8))
    assert ran.exists()


def test_old_format_beside_the_new(plain):
    with zipfile.ZipFile(plain, "a") as archive:
        archive.writestr("version", b"8.1")
    assert "old format" in str(find_code(plain))


@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_truncated(plain, keep):
    data = plain.read_bytes()
    plain.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SourceError, match="truncated or damaged"):
        load_model(ModelRequest(str(plain)))


def test_damaged_graph(plain, capfd):
    rewrite(plain, {MODEL: b"{"})
    with pytest.raises(SourceError, match="cannot be loaded"):
        load_model(ModelRequest(str(plain)))
    rewrite(plain, {MODEL: b"{}", "archive_version": b"99"})
    with pytest.raises(SourceError, match="cannot be loaded"):
        load_model(ModelRequest(str(plain)))
    assert "Traceback" not in capfd.readouterr().err


def test_weights_that_end_too_early(plain, capfd):
    rewrite(plain, {"data/weights/weight_0": b"1234"})
    with pytest.raises(SourceError, match="cannot be loaded"):
        load_model(ModelRequest(str(plain)))
    assert "Traceback" not in capfd.readouterr().err


def test_damaged_preprocessing(tiny_cnn, tmp_path):
    tiny_cnn.save(tmp_path / "p.pt2")
    rewrite(tmp_path / "p.pt2", {"extra/preprocessing.json": b'{"mean": 3}'})
    with pytest.raises(SourceError, match=r"beside the program in the \.pt2 file"):
        read_pt2(tmp_path / "p.pt2")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Mul(Integer(4), Symbol('s77', positive=True, integer=True))", True),
        ("Pow(Symbol('s0', integer=True), Integer(-1))", True),
        ("L['x'].size()[0] % 2 == 0 and L['x'].size()[1] <= 4", True),
        ("-3", True),
        ("__import__('os')", False),
        ("Symbol('__import__(1)')", False),
        ("L['x'].__class__", False),
        ("(lambda: 1)()", False),
        ("[x for x in y]", False),
        ("f'{x}'", False),
        ("(x := 1)", False),
        ("lambdify(x, x)", False),
        ("L['x'].size(eval)(1)", False),
        ("x # comment", False),
        ("1\n", False),
        ("1; 2", False),
        ("", False),
        ("(" * 3000 + ")" * 3000, False),
        ("\uff45val(1)", False),
    ],
)
def test_plain_expressions(text, plain):
    assert is_plain_expression(text) is plain


def test_the_hostile_object_is_one(tmp_path):
    pickle.loads(pickle.dumps(Touch(tmp_path / "made")))
    assert (tmp_path / "made").exists()
