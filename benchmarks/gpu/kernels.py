"""PyTorch dense against its 2:4 kernels, whole models, batch by batch: what sparse tensor cores give before any engine.

    python -m benchmarks.gpu.kernels [--device cuda] [--batches 1,8,32,128]

A ViT-B/16 and a ResNet-50 with random weights are pruned to 2:4 by magnitude (speed needs no accuracy), exported in the
`torch` format, loaded in FP16, and timed with its 2:4 weights on sparse kernels against the same on dense
kernels. Rounds of both alternate; a ratio's interval comes from resampling rounds. The ONNX files are timed by
`snowsdeploy profile`, which `run.sh` calls. Writes `kernels.json` and `kernels.md` into --out. With `--device cpu`
nothing is sparse: that run only shows that the script works.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.models import RESULTS, machine, random_model
from snowsdeploy.files import write_text_atomic
from snowsdeploy.measure.profile import ratio
from snowsdeploy.runtime.gpu_state import read_gpu
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.job import run_main_job
from snowsdeploy.values import FileRatio, Report
from snowsdeploy_exporters import FORMATS, OnnxExporter
from snowsdeploy_exporters.semi_structured import CONVERTED, load_semi_structured

MODELS = {"vit_base_patch16_224": 224, "resnet50": 224}
BLOCK = 5
Row = dict[str, Any]


def main() -> None:
    """Prune, load, time, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=tuple(MODELS), default=tuple(MODELS))
    parser.add_argument("--keep", type=Path, help="leave the run directories there, for `snowsdeploy profile`")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            run = (options.keep or Path(scratch)) / name
            run_main_job(_config(name, MODELS[name], run, Path(scratch)), OnnxExporter(), writers=FORMATS)
            rows += _time_model(name, run, options)
    result = {"machine": machine(), "device": options.device, "rows": rows}
    write_text_atomic(options.out / "kernels.json", json.dumps(result, indent=2) + "\n")
    text = _markdown(result)
    write_text_atomic(options.out / "kernels.md", text)
    print(text)


def _config(name: str, size: int, run: Path, scratch: Path) -> MainJob:
    values = random_model(name, size, scratch / f"{name}.npz", 8)
    values |= {"precision": ("fp32", "fp16"), "format": ("onnx", "torch"), "out": run, "force": True}
    return read_settings(MainJob, values)


def _time_model(name: str, run: Path, options: argparse.Namespace) -> list[Row]:
    report = Report.model_validate_json((run / "report.json").read_text(encoding="utf-8"))
    size = report.signature.inputs[0].shape
    sparse = load_semi_structured(run / "torch", options.device)
    unconverted = load_semi_structured(run / "torch", options.device, convert=lambda weight: weight)
    models = {"dense kernels": unconverted.model, "2:4 kernels": sparse.model}
    converted = sum(state == CONVERTED for state in sparse.layers.values())
    rows = []
    for batch in map(int, options.batches.split(",")):
        images = torch.randn(batch, *size, device=options.device, dtype=torch.float16)
        samples = _timed({n: _call(model, images) for n, model in models.items()}, options.rounds)
        found = ratio(
            ("dense kernels", samples["dense kernels"]), ("2:4 kernels", samples["2:4 kernels"]), batch, _rng()
        )
        rows.append(_row(name, batch, samples, found, converted=converted, layers=len(sparse.layers)))
        print(rows[-1], flush=True)
    return rows


def _call(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], float]:
    """One call in milliseconds; on a GPU between two events, so that only its work counts."""

    def on_gpu() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        model(images)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def on_cpu() -> float:
        start = time.perf_counter()
        model(images)
        return (time.perf_counter() - start) * 1000

    return on_gpu if images.is_cuda else on_cpu


@torch.inference_mode()
def _timed(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, np.ndarray[Any, Any]]:
    for call in calls.values():
        for _ in range(3):
            call()
    rng, names = _rng(), list(calls)
    samples: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for index in rng.permutation(len(names)):
            samples[names[index]].append([calls[names[index]]() for _ in range(BLOCK)])
    return {name: np.array(values) for name, values in samples.items()}


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _row(
    name: str, batch: int, samples: dict[str, np.ndarray[Any, Any]], found: FileRatio, *, converted: int, layers: int
) -> Row:
    return {
        "model": name,
        "batch": batch,
        "converted": converted,
        "pruned": layers,
        "p50_ms": {n: float(np.median(values)) for n, values in samples.items()},
        "speedup": [found.speedup, found.low, found.high],
        "gpu": [reading.model_dump() for reading in read_gpu(f"after batch {batch}")],
    }


def _markdown(result: dict[str, Any]) -> str:
    where = ", ".join(result["machine"]["gpus"]) or result["machine"]["cpu"]
    lines = [
        f"# PyTorch's dense and 2:4 kernels, FP16, whole models, on {result['device']}",
        "",
        f"{where}; torch {result['machine']['versions']['torch']}; `python -m benchmarks.gpu.kernels`",
        "",
        "| model | batch | layers on 2:4 kernels | dense kernels, ms | 2:4 kernels, ms | dense / 2:4 |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        times = " | ".join(f"{row['p50_ms'][kind]:.3f}" for kind in ("dense kernels", "2:4 kernels"))
        speedup, low, high = row["speedup"]
        layers = f"{row['converted']} of {row['pruned']}"
        lines.append(
            f"| {row['model']} | {row['batch']} | {layers} | {times} | {speedup:.3f} [{low:.3f}, {high:.3f}] |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
