"""The models and images of the benchmarks, from the folder that SNOWSDEPLOY_DATA names; the machine that ran them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snowsdeploy.files import write_text_atomic
from snowsdeploy.runtime.environment import describe_environment

RESULTS = Path(__file__).parent / "results"

RESNET20: dict[str, Any] = {
    "model": "resnet20_cifar10.th",
    "arch": "cifar_resnet:resnet20",
    "data": "cifar10_train8k.npz",
    "eval_data": "cifar10_test.npz",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
DEIT_TINY: dict[str, Any] = {
    "model": "deit_tiny_patch16_224.pth",
    "arch": "deit_tiny_patch16_224",
    "data": "imagenet_sample[0::2]",
    "eval_data": "imagenet_sample[1::2]",
}
MODELS = {"resnet20": RESNET20, "deit-tiny": DEIT_TINY}


def enter_data() -> Path:
    """Make the data folder the current one: file names and `module:factory` are relative to it."""
    folder = os.environ.get("SNOWSDEPLOY_DATA")
    if not folder or not Path(folder).is_dir():
        sys.exit("SNOWSDEPLOY_DATA must name the folder with the benchmark models and images")
    os.chdir(folder)
    return Path(folder)


def random_model(name: str, size: int, images: Path, count: int) -> dict[str, Any]:
    """Settings of a timm model with random weights on random images, masks alone: shapes and operators, no accuracy.

    Args:
        name: timm's name.
        size: Height and width of its images.
        images: The `.npz` file to write.
        count: How many images.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    np.savez(images, x=pixels)  # without labels: no accuracy is to come of it
    return {
        "model": "timm.models:create_model",
        "model_arg": {"model_name": name},
        "data": str(images),
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "solver": "none",
        "selector": "magnitude",
        "batch_size": 8,
        "latency_batch": (1,),
        "latency_runs": 5,
    }


def machine() -> dict[str, Any]:
    """Processor, memory, versions: what a figure needs beside it."""
    found: dict[str, Any] = describe_environment().model_dump(mode="json")
    return found


def read_rows(store: Path) -> list[dict[str, Any]]:
    """What a stopped benchmark left, so that it continues; nothing when there is no file."""
    return list(json.loads(store.read_text(encoding="utf-8"))["rows"]) if store.exists() else []


def write_rows(store: Path, command: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows with the command that repeats them and the machine; atomic."""
    document = {"command": command, "machine": machine(), "rows": rows}
    write_text_atomic(store, json.dumps(document, indent=1) + "\n")


def machine_name() -> str:
    """A file name's part."""
    environment = machine()
    text = f"{environment['cpu']}-{environment['cores']}-cores"
    return "".join(c if c.isalnum() else "-" for c in text).strip("-").lower()
