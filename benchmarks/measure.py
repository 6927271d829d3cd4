"""One pruning run measured: seconds, products, and the accuracy of its ONNX file beside the dense one's."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.classification import figures
from benchmarks.models import MODELS
from snowsdeploy.batch import Batch
from snowsdeploy.data.open import open_samples
from snowsdeploy.data.samples import Samples
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.checkpoints import Checkpoints, T, run_key
from snowsdeploy.pruning.plan import make_plan
from snowsdeploy.pruning.prune import Plan, Solved, prune_program
from snowsdeploy.runtime.environment import peak_memory_bytes
from snowsdeploy.runtime.session import OrtSession
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.presets import resolve
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.program import load_program
from snowsdeploy.tasks.classify import Classify
from snowsdeploy.tasks.evaluate import compare_outputs
from snowsdeploy.values import LayerReport
from snowsdeploy.values.base import Artifact
from snowsdeploy_exporters import OnnxExporter

_SCRATCH = Path(tempfile.gettempdir()) / f"snowsdeploy-masks-{os.getpid()}"
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)

Row = dict[str, Any]
Reorder = Callable[[Program, list[str], Pattern, list[Batch]], Program]


def run(
    name: str,
    model: str,
    settings: Row,
    reorder: Reorder | None = None,
    change: Callable[[Plan], Plan] = lambda plan: plan,
) -> Row:
    """Prune, export, and measure the sparse file against the dense one.

    Args:
        name: Of the row.
        model: One of `MODELS`.
        settings: Of the run, laid over the model's; with `masks_only` the dense weights are put on the masks found.
        reorder: Dense program, pruned weights, pattern, images -> the program with its channels in another order.
        change: What the settings say to solve -> what is solved.
    """
    given = {k: v for k, v in settings.items() if k != "masks_only"}
    config = read_settings(MainJob, MODELS[model] | given | {"out": "unused"})
    program = _dense(model)[0]
    calibration = open_samples(config.data, program.preprocessing).sample(config.samples, config.seed)
    pattern = Pattern.parse(config.pattern)
    names = [d.weight for d in decide_layers(ProgramGraph(program), pattern) if d.prunable and d.weight]
    batches = list(calibration.batches(config.batch_size))
    plan = change(make_plan(resolve(config), len(batches)))
    labels = None if calibration.labels is None else torch.from_numpy(calibration.labels)
    if reorder:
        program = reorder(program, names, pattern, batches)
    chosen = None if reorder else _SharedMasks(_SCRATCH, _mask_key(model, config))
    started = time.perf_counter()
    pruned = prune_program(
        program, batches, names, pattern, plan, observer=NullObserver(), labels=labels, checkpoints=chosen
    )
    seconds = time.perf_counter() - started
    tensors = pruned.tensors
    if settings.get("masks_only"):
        tensors = {n: program.state_dict[n] * (pruned.masks[n]) for n in names}
    row = {"name": name, "settings": settings, "images": len(calibration), "seconds": round(seconds, 1)}
    return row | judge(model, program.with_weights(tensors)) | _cost(pruned)


class _SharedMasks(Checkpoints):
    """Keeps the masks that are chosen before anything is solved, so that every solver has the same; nothing else."""

    def load(self, problem: str, kind: type[T]) -> tuple[dict[str, Tensor], T] | None:
        """See `Checkpoints`."""
        return super().load(problem, kind) if problem == "masks" else None

    def save(self, problem: str, tensors: Mapping[str, Tensor], report: Artifact) -> None:
        """See `Checkpoints`."""
        if problem == "masks":
            super().save(problem, tensors, report)


def _mask_key(model: str, config: MainJob) -> str:
    fields = {
        "pattern",
        "selector",
        "selector_arg",
        "threshold",
        "layer_cap",
        "mask_steps",
        "labels",
        "samples",
        "seed",
    }
    return run_key(model=model, **config.model_dump(include=fields))


def judge(model: str, pruned: Program) -> Row:
    """Top-1 in percent with its 95 % interval and the KL in nats, of the ONNX file."""
    _, images, dense = _dense(model)
    found = compare_outputs(Classify(), [dense], [_logits(pruned, images)], images)
    return figures(found)


@cache
def _dense(model: str) -> tuple[Program, Samples, NDArray[np.float64]]:
    """The program, the images that judge it, and its logits on them."""
    config = read_settings(MainJob, MODELS[model] | {"out": "unused"})
    assert config.eval_data is not None
    program = load_program(config, config.data)
    images = open_samples(config.eval_data, program.preprocessing)
    return program, images, _logits(program, images)


def _logits(program: Program, images: Samples) -> NDArray[np.float64]:
    """Of the ONNX file, `[images, classes]`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        OnnxExporter().export(program, path, "sparse", {})
        session = OrtSession.open(path)
        return np.concatenate([session.run(b.numpy())[0] for b in images.batches(100)]).astype(np.float64)


def _cost(pruned: Solved) -> Row:
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
        "peak_gib": round(peak_memory_bytes() / 2**30, 2),
        "notes": list(pruned.notes),
    }
