"""Compiled engines kept between sessions, under a key that tells apart everything that decides an engine.

The TensorRT provider's own key leaves the weights out, so that the dense and the sparse file of one model would get
each other's engine. Here every file, set of options, version and GPU has a folder of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from snowsdeploy.layout.onnx_file import onnx_digest
from snowsdeploy.runtime.environment import installed_versions
from snowsdeploy.runtime.gpu_state import list_gpus
from snowsdeploy.runtime.providers import Provider

_COMPILERS = ("onnxruntime-gpu", "onnxruntime", "tensorrt", "tensorrt-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu13")


def cache_options(provider: Provider, folder: Path, key: str) -> dict[str, str]:
    """Provider options that keep engines in `folder/key`, which is created; none where the provider compiles none."""
    if not provider.cache:
        return {}
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
    return {name: value.format(folder=place, key=key[:16]) for name, value in provider.cache.items()}


def engine_key(model: Path | bytes, provider: Provider, options: Mapping[str, str]) -> str:
    """A digest of model, weights, provider, options, versions and GPUs."""
    gpus = [f"{gpu.name} {gpu.capability}" for gpu in list_gpus()]
    facts = {
        "model": model_digest(model),
        "provider": provider.ep,
        "options": dict(options),
        "versions": installed_versions(_COMPILERS),
        "gpus": gpus,
    }
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def model_digest(model: Path | bytes) -> str:
    """A digest of an ONNX file and of every file that holds weights of it."""
    return sha256(model).hexdigest() if isinstance(model, bytes) else onnx_digest(model)
