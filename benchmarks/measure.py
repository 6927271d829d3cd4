"""One pruning run measured: seconds, products, and the accuracy of its ONNX file beside the dense one's."""

from __future__ import annotations

import resource
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.models import MODELS
from snowsdeploy.artifacts import LayerReport
from snowsdeploy.config import RunConfig, build_config
from snowsdeploy.data.images import ImageSet
from snowsdeploy.data.open import open_images
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pipeline import load_program, make_plan
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.prune import Pruned, prune_program
from snowsdeploy.sparsity.pattern import Pattern
from snowsdeploy.validation.accuracy import compare_logits
from snowsdeploy.validation.ort import OrtSession
from snowsdeploy_exporters import OnnxExporter

Row = dict[str, Any]


def run(name: str, model: str, settings: Row) -> Row:
    """Prune, export, and measure the sparse file against the dense one.

    Args:
        name: Of the row.
        model: One of `MODELS`.
        settings: Of the run, laid over the model's; with `masks_only` the dense weights are put on the masks found.
    """
    given = {k: v for k, v in settings.items() if k != "masks_only"}
    config = build_config(RunConfig, MODELS[model] | given | {"out": "unused"})
    program, images, dense = _dense(model)
    calibration = open_images(config.data, program.preprocessing).sample(config.samples, config.seed)
    pattern = Pattern.parse(config.pattern)
    names = [d.weight for d in decide_layers(ProgramGraph(program), pattern) if d.prunable and d.weight]
    batches = list(calibration.batches(config.batch_size))
    plan = make_plan(config, len(batches))
    labels = None if calibration.labels is None else torch.from_numpy(calibration.labels)
    started = time.perf_counter()
    pruned = prune_program(program, batches, names, pattern, plan, observer=NullObserver(), labels=labels)
    seconds = time.perf_counter() - started
    tensors = pruned.tensors
    if settings.get("masks_only"):
        tensors = {n: program.state_dict[n] * (tensors[n] != 0) for n in names}
    found = compare_logits(dense, _logits(program.with_weights(tensors), images), images, "CPUExecutionProvider")
    assert found.dense_top1 is not None
    assert found.sparse_top1 is not None
    top1 = found.sparse_top1
    return {
        "name": name,
        "settings": settings,
        "images": len(calibration),
        "seconds": round(seconds, 1),
        "dense_top1": round(100 * found.dense_top1.value, 2),
        "top1": round(100 * top1.value, 2),
        "low": round(100 * top1.low, 2),
        "high": round(100 * top1.high, 2),
        "kl": round(found.agreement.kl, 4),
    } | _cost(pruned)


@cache
def _dense(model: str) -> tuple[Program, ImageSet, NDArray[np.float64]]:
    """The program, the images that judge it, and its logits on them."""
    config = build_config(RunConfig, MODELS[model] | {"out": "unused"})
    assert config.eval_data is not None
    program = load_program(config, config.data)
    images = open_images(config.eval_data, program.preprocessing)
    return program, images, _logits(program, images)


def _logits(program: Program, images: ImageSet) -> NDArray[np.float64]:
    """Of the ONNX file, `[images, classes]`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        OnnxExporter().export(program, path, "sparse", {})
        session = OrtSession.open(path)
        return np.concatenate([session.run(b.numpy())[0] for b in images.batches(100)]).astype(np.float64)


def _cost(pruned: Pruned) -> Row:
    """Products, the rate of the Newton steps in GFLOP/s, how the masks were chosen, and the process' peak memory."""
    solves: list[LayerReport] = [*pruned.units, *([pruned.final] if pruned.final else [])]
    flops = sum(s.products * s.product_flops for s in solves)
    newton = sum(s.newton_seconds for s in solves)
    return {
        "objective": sum(s.loss_final for s in solves) / len(solves),
        "products": sum(s.products for s in solves),
        "newton_seconds": round(newton, 1),
        "gflops": round(flops / newton / 1e9, 1) if newton else 0.0,
        "selection": pruned.selection.model_dump(mode="json"),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "notes": list(pruned.notes),
    }
