"""Damaged files at every door: each loads or is refused by one clear message, soon. The tests do the same for a moment.

python -m benchmarks.fuzz --minutes 10
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from snowsdeploy.data.files import require_readable
from snowsdeploy.data.open import open_samples
from snowsdeploy.errors import SnowsDeployError
from snowsdeploy.models.onnx.importer import import_onnx
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.settings.read import read_file
from snowsdeploy.stages.inspect import inspect_file
from snowsdeploy.values import InputInfo, Preprocessing

SECONDS = 1.0  # of this process, for one file
_MOST_CHANGES = 4
_PATTERN = Pattern(2, 4)
_IMAGES = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


@dataclass(frozen=True)
class Door:
    """Where a kind of file enters.

    Attributes:
        name: Of the kind.
        suffix: Of its files.
        write: Makes a small valid one.
        read: What a command does with it.
    """

    name: str
    suffix: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few flipped bits, a cut end, or bytes that were put in, taken out or copied."""
    data = bytearray(content)
    for _ in range(rng.randint(1, _MOST_CHANGES)):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 64))
        kind = rng.choice(("flip", "flip", "flip", "cut", "insert", "remove", "copy", "extreme"))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = rng.randbytes(length)
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "copy":
            data[at:at] = data[at : at + length]
        elif kind == "extreme":
            data[at : at + length] = rng.choice((b"\x00", b"\x7f", b"\xff")) * length
    return bytes(data)


def outcome(door: Door, path: Path) -> str:
    """`loaded`, `refused`, or what else happened."""
    started = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library may warn of what it then refuses
            door.read(path)
        result = "loaded"
    except SnowsDeployError:
        result = "refused"
    except Exception as error:  # that there is none is what is tested
        result = f"{type(error).__name__}: {error}"
    took = time.process_time() - started
    return result if took < SECONDS else f"{result}, after {took:.1f} s"


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


def _write_pt2(path: Path) -> None:
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(_net(), (torch.randn(2, 3, 8, 8),), dynamic_shapes=dynamic), path)


def _write_onnx(path: Path) -> None:
    weights = [numpy_helper.from_array(value.numpy(), name) for name, value in _net().state_dict().items()]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"], name="conv"),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Flatten", ["b"], ["c"], axis=1),
            helper.make_node("Identity", ["3.weight"], ["w"]),
            helper.make_node("Gemm", ["c", "w", "3.bias"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def _write_npz(path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez_compressed(path, x=rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), y=np.arange(4))


def _write_image(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def _write_settings(path: Path) -> None:
    path.write_text('model = "net.pt"\nmean = [0.5, 0.5, 0.5]\nsamples = 16\n[gate]\nmin_speedup = 1.5\n')


def _inspect(path: Path) -> None:
    inspect_file(path, _PATTERN)


DOORS = (
    Door("checkpoint", ".pth", lambda path: torch.save(_net().state_dict(), path), _inspect),
    Door(
        "legacy checkpoint",
        ".pt",
        lambda path: torch.save(_net().state_dict(), path, _use_new_zipfile_serialization=False),
        _inspect,
    ),
    Door("safetensors", ".safetensors", lambda path: safetensors.torch.save_file(_net().state_dict(), path), _inspect),
    Door("pt2", ".pt2", _write_pt2, _inspect),
    Door("ONNX, inspected", ".onnx", _write_onnx, _inspect),
    Door("ONNX, imported", ".onnx", _write_onnx, import_onnx),
    Door("npz of images", ".npz", _write_npz, lambda path: open_samples(str(path), _IMAGES)),
    Door(
        "npz of arrays",
        ".npz",
        _write_npz,
        lambda path: open_samples(str(path), None, (InputInfo(name="x", shape=(8, 8, 3), dtype="uint8"),)),
    ),
    Door("PNG", ".png", _write_image, lambda path: require_readable([path])),
    Door("JPEG", ".jpg", _write_image, lambda path: require_readable([path])),
    Door("TOML", ".toml", _write_settings, read_file),
)


def _fuzz(door: Door, folder: Path, seconds: float, rng: random.Random, kept: Path | None) -> Counter[str]:
    """What became of as many damaged files as there is time for."""
    valid = folder / f"valid{door.suffix}"
    door.write(valid)
    content, path, counts = valid.read_bytes(), folder / f"damaged{door.suffix}", Counter[str]()
    path.write_bytes(content[: len(content) // 2])
    outcome(door, path)  # imports what it needs, and what its messages need
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        path.write_bytes(mutated(content, rng))
        result = outcome(door, path)
        counts[result if result in ("loaded", "refused") else "other"] += 1
        if result not in ("loaded", "refused"):
            print(f"{door.name}: {result[:300]}", flush=True)
            if kept is not None:
                path.rename(kept / f"{door.name.replace(' ', '-')}-{counts['other']}{door.suffix}")
    return counts


def main() -> None:
    """Damage files for some minutes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="in all, shared by the doors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that did neither load nor were refused")
    arguments = parser.parse_args()
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    rng, rows = random.Random(arguments.seed), []
    for door in DOORS:
        with tempfile.TemporaryDirectory() as folder:
            counts = _fuzz(door, Path(folder), 60 * arguments.minutes / len(DOORS), rng, arguments.keep)
        rows.append((door.name, counts.total(), *(counts[kind] for kind in ("loaded", "refused", "other"))))
    print("| door | tries | loaded | refused | other |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
