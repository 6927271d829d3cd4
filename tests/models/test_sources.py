"""MODEL strings: what is loaded, and one message for everything that cannot be."""

import json
import sys
from hashlib import sha256

import pytest
import timm
import torch
from torch import nn

from snowsdeploy.errors import NumericsError, SnowsDeployError, SourceError, UsageError
from snowsdeploy.models.source import ModelRequest, load_model

FACTORIES = """
import torch
from torch import nn

def net(width=4, *, bias=True):
    return nn.Sequential(nn.Conv2d(3, width, 3, bias=bias), nn.Flatten())

def fails():
    raise RuntimeError("no such size")

def gives_a_list():
    return []

number = 3
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user's folder with a module, as the current directory."""
    (tmp_path / "user_nets_42.py").write_text(FACTORIES)
    (tmp_path / "user_broken_42.py").write_text("def net(:\n")
    (tmp_path / "user_needs_42.py").write_text("import a_module_that_nobody_has_42\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("user_nets_42", "user_broken_42", "user_needs_42"):
        sys.modules.pop(name, None)


def save_net(path, **extra):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}, **extra}, path)
    return net


def test_checkpoint_with_a_factory(user):
    net = save_net(user / "net.th")
    path_before = list(sys.path)
    loaded = load_model(ModelRequest("net.th", arch="user_nets_42:net"))
    assert sys.path == path_before
    torch.testing.assert_close(loaded.model[0].weight, net[0].weight.detach())
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.preprocessing is None
    assert loaded.source.format == "checkpoint"
    assert loaded.source.arch == "user_nets_42:net"
    assert loaded.source.sha256 == sha256((user / "net.th").read_bytes()).hexdigest()


def test_factory_alone_takes_arguments(user):
    loaded = load_model(ModelRequest("user_nets_42:net", model_args={"width": 8, "bias": False}))
    assert loaded.model[0].weight.shape[0] == 8
    assert loaded.model[0].bias is None
    assert loaded.source.format == "factory"
    assert loaded.source.sha256 is None


def test_half_and_double_become_float32(user):
    (user / "user_nets_42.py").write_text("from torch import nn\ndef net(): return nn.Linear(2, 2).half()\n")
    assert load_model(ModelRequest("user_nets_42:net")).model.weight.dtype == torch.float32


def test_timm_checkpoint_honours_arch_and_preprocessing(tmp_path):
    model = timm.create_model("test_resnet", num_classes=7)
    torch.save({"arch": "test_resnet", "state_dict": model.state_dict()}, tmp_path / "m.pth")
    loaded = load_model(ModelRequest(str(tmp_path / "m.pth"), model_args={"num_classes": 7}))
    config = timm.data.resolve_model_data_config(model)
    assert loaded.source.arch == "test_resnet"
    assert loaded.preprocessing is not None
    for key in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"):
        assert getattr(loaded.preprocessing, key) == config[key]
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded.model(x), model.eval()(x).detach())


def test_arguments_change_the_input_size(tmp_path):
    model = timm.create_model("test_vit", img_size=96, in_chans=1, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    arguments = {"img_size": 96, "in_chans": 1, "num_classes": 3}
    loaded = load_model(ModelRequest(str(tmp_path / "m.pth"), arch="test_vit", model_args=arguments))
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.input_size == (1, 96, 96)


def test_pickled_module_and_arch(tmp_path):
    model = timm.create_model("test_resnet", num_classes=3)
    torch.save(model, tmp_path / "m.pth")
    loaded = load_model(ModelRequest(str(tmp_path / "m.pth"), allow_pickle=True))
    assert loaded.source.arch == "ResNet"
    assert loaded.preprocessing is not None
    request = ModelRequest(str(tmp_path / "m.pth"), "test_resnet", {"num_classes": 3}, allow_pickle=True)
    assert load_model(request).source.arch == "test_resnet"
    with pytest.raises(SourceError, match="do not fit the architecture test_vit"):
        load_model(ModelRequest(str(tmp_path / "m.pth"), "test_vit", allow_pickle=True))


def test_timm_pretrained_is_asked_for(monkeypatch):
    asked = {}

    def create_model(name, *, pretrained, **arguments):
        asked.update(name=name, pretrained=pretrained, **arguments)
        return nn.Linear(2, 2)

    monkeypatch.setattr(timm, "create_model", create_model)
    loaded = load_model(ModelRequest("timm:test_resnet.r160_in1k", model_args={"num_classes": 3}))
    assert asked == {"name": "test_resnet.r160_in1k", "pretrained": True, "num_classes": 3}
    assert loaded.source.format == "timm"


def test_failed_download_is_one_message(monkeypatch):
    def create_model(name, **_):
        raise ConnectionError("Max retries exceeded\nwith a page of advice")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(SourceError, match="cannot create test_resnet") as caught:
        load_model(ModelRequest("timm:test_resnet"))
    assert caught.value.seen == "ConnectionError: Max retries exceeded"
    assert "check the network" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("source", "arch", "message", "hint"),
    [
        ("nothing_here", None, "MODEL is not a file that exists", "timm:NAME"),
        ("missing.pth", None, "does not exist", "missing.pth"),
        ("net.th", None, "does not name its architecture", "--arch resnet50"),
        ("net.th", "resnet18s", "--arch names no timm model", "did you mean resnet18"),
        ("net.th", "qqqqqqqqqqqq", "--arch names no timm model", "timm.list_models"),
        ("net.th", "test_resnet", "do not fit the architecture test_resnet", "--model-arg"),
        ("net.th", "no_such_module_42:net", "--arch: the module cannot be imported", "no_such_module_42.py"),
        ("net.th", "user_broken_42:net", "--arch: the module cannot be imported", "SyntaxError"),
        ("net.th", "user_needs_42:net", "--arch: the module cannot be imported", "a_module_that_nobody_has_42"),
        ("net.th", "user_nets_42:nett", "user_nets_42 has no such factory", "user_nets_42:net"),
        ("net.th", "user_nets_42:number", "user_nets_42 has no such factory", "user_nets_42:net"),
        ("net.th", "user_nets_42:", "user_nets_42 has no such factory", "user_nets_42:net"),
        ("user_nets_42:fails", None, "MODEL: the factory user_nets_42:fails raised RuntimeError", "no such size"),
        ("user_nets_42:gives_a_list", None, "returned no torch.nn.Module", "list"),
        ("timm:resnet18s", None, "MODEL names no timm model", "did you mean resnet18"),
        ("tiny.pth", None, "the checkpoint's arch .* names no timm model", "my_private_net"),
        ("code.pth", None, "the checkpoint names a factory", "--arch os:getcwd"),
    ],
)
def test_messages(user, source, arch, message, hint):
    save_net(user / "net.th")
    save_net(user / "tiny.pth", arch="my_private_net")
    save_net(user / "code.pth", arch="os:getcwd")
    with pytest.raises(SourceError, match=message) as caught:
        load_model(ModelRequest(source, arch))
    assert hint in str(caught.value)


@pytest.mark.parametrize("source", ["timm:test_resnet", "user_nets_42:net"])
def test_arch_beside_a_model_with_its_own(user, source):
    with pytest.raises(UsageError, match="--arch is for a checkpoint"):
        load_model(ModelRequest(source, arch="resnet18"))


def test_wrong_arguments_of_a_factory(user):
    with pytest.raises(SourceError, match="raised TypeError") as caught:
        load_model(ModelRequest("user_nets_42:net", model_args={"depth": 3}))
    assert "depth" in str(caught.value)
    assert "--model-arg" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(user, value):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    net[0].weight.data[0, 0, 0, :2] = value
    torch.save(net.state_dict(), user / "net.pt")
    with pytest.raises(NumericsError, match="NaN or Inf") as caught:
        load_model(ModelRequest("net.pt", arch="user_nets_42:net"))
    assert caught.value.seen == "0.weight: 2 of 108 values"


def test_a_mask_of_minus_infinity_is_no_damage(user):
    (user / "user_nets_42.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net(value=-torch.inf):\n"
        "    net = nn.Linear(2, 2)\n"
        "    net.register_buffer('mask', torch.full((2, 2), value))\n"
        "    return net\n"
    )
    assert load_model(ModelRequest("user_nets_42:net")).model.mask[0, 0] == -torch.inf
    with pytest.raises(NumericsError, match="NaN or Inf"):
        load_model(ModelRequest("user_nets_42:net", model_args={"value": torch.nan}))


def test_every_message_is_readable(user):
    """No message carries a traceback or a page of text."""
    save_net(user / "net.th")
    for source, arch in [("net.th", "test_resnet"), ("net.th", "user_nets_42:x"), ("timm:zzz", None)]:
        with pytest.raises(SnowsDeployError) as caught:
            load_model(ModelRequest(source, arch))
        assert len(str(caught.value)) < 700
        assert "Traceback" not in str(caught.value)


def test_real_resnet20(real_data, monkeypatch):
    monkeypatch.chdir(real_data)
    loaded = load_model(ModelRequest("resnet20_cifar10.th", arch="cifar_resnet:resnet20"))
    monkeypatch.delitem(sys.modules, "cifar_resnet")
    assert sum(p.numel() for p in loaded.model.parameters()) == 269_722
    assert loaded.preprocessing is None


def test_real_deit(real_data):
    request = ModelRequest(str(real_data / "deit_tiny_patch16_224.pth"), arch="deit_tiny_patch16_224")
    loaded = load_model(request)
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.input_size == (3, 224, 224)
    assert loaded.preprocessing.crop_pct == 0.9
    with pytest.raises(SourceError, match="do not fit the architecture vit_small_patch16_224") as caught:
        load_model(ModelRequest(request.source, arch="vit_small_patch16_224"))
    assert "more" in str(caught.value)
    json.dumps(loaded.source.model_dump())
