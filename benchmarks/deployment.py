"""One checkpoint, three precisions, from end to end: what each file holds, computes and costs.

    SNOWSDEPLOY_DATA=... python -m benchmarks.deployment --model resnet20 [--effort default]

Runs the main job with `--precision fp32,fp16,int8 --compile-for 8.6,8.9,12.0`, then asks others about each sparse file:
the ONNX checker with strict shape inference, and Polygraphy's `inspect sparsity`. Polygraphy does not look through
DequantizeLinear, so for INT8 it gets a copy whose stored integers are dequantized in place. Writes
`results/deployment-MODEL.json` and `.md`; `--keep FOLDER` leaves the run directory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper, shape_inference

from benchmarks.classification import divergence, share
from benchmarks.models import MODELS, RESULTS, enter_data, machine
from snowsdeploy.files import write_text_atomic
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.job import run_main_job
from snowsdeploy.values import Accuracy, Report, Variant
from snowsdeploy_exporters import OnnxExporter

Row = dict[str, Any]


def main() -> None:
    """Run, ask, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="resnet20")
    parser.add_argument("--effort", default="default")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out, keep = options.out.resolve(), options.keep.resolve() if options.keep else None
    enter_data()
    with tempfile.TemporaryDirectory() as folder:
        values = MODELS[options.model] | {
            "effort": options.effort,
            "precision": ("fp32", "fp16", "int8"),
            "compile_for": ("8.6", "8.9", "12.0"),
            "out": keep or Path(folder) / "run",
            "force": True,
        }
        report = run_main_job(read_settings(MainJob, values), OnnxExporter())
        assert report is not None  # of one process
        rows = [_row(variant, report, Path(folder)) for variant in report.variants]
    result = {"model": options.model, "effort": options.effort, "machine": machine(), "rows": rows}
    write_text_atomic(out / f"deployment-{options.model}.json", json.dumps(result, indent=2) + "\n")
    text = _markdown(result, report)
    write_text_atomic(out / f"deployment-{options.model}.md", text)
    print(text)


def _row(variant: Variant, report: Report, folder: Path) -> Row:
    path = variant.sparse.path
    onnx.checker.check_model(path, full_check=True)
    shape_inference.infer_shapes_path(path, folder / "inferred.onnx", strict_mode=True)
    assert variant.sparsity is not None
    assert variant.parity is not None
    assert variant.latency is not None
    assert variant.compilation is not None
    valid = {row.name for row in variant.sparsity.layers if row.layout_valid} & set(variant.sparsity.expected)
    return {
        "precision": variant.precision,
        "sparse": _size(variant.sparse.size_bytes),
        "dense": _size(variant.dense.size_bytes),
        "layers": f"{len(valid)} of {len(report.prune.pruned)}",
        "polygraphy": _polygraphy(path, folder, quantized=variant.precision == "int8"),
        "kept_in_fp32": len(variant.sparse.kept),
        "parity": variant.parity.worst_relative_l2,
        "accuracy": variant.accuracy.model_dump(mode="json") if variant.accuracy else None,
        "latency": [ratio.model_dump(mode="json") for ratio in variant.latency.ratios],
        "p50_ms": {s.batch: s.p50_ms for s in variant.latency.series if s.role == "sparse"},
        "compiler": variant.compilation.compiler,
        "accepted": variant.compilation.accepted,
        "messages": variant.compilation.messages,
    }


def _size(size: int) -> float:
    return round(size / 2**20, 2)


def _polygraphy(path: Path, folder: Path, *, quantized: bool) -> int:
    """How many tensors Polygraphy calls sparse."""
    if quantized:
        path = _dequantized(path, folder / "dequantized.onnx")
    command = [sys.executable, "-c", "from polygraphy.tools import main; main()", "inspect", "sparsity", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.count("Found sparse tensor")


def _dequantized(path: Path, target: Path) -> Path:
    """A copy in which a stored weight is the values that DequantizeLinear makes of it."""
    model = onnx.load(path)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            values = _dequantize([constants.get(name) for name in node.input], axis)
            model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
            model.graph.node.remove(node)
    _drop_types(model)
    onnx.save(model, target)
    return target


def _dequantize(inputs: list[Any], axis: int) -> np.ndarray[Any, Any]:
    values, scale, *zero = inputs
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    shift = zero[0].reshape(shape) if zero and zero[0] is not None else 0
    result: np.ndarray[Any, Any] = ((values.astype(np.int32) - shift) * scale.reshape(shape)).astype(np.float32)
    return result


def _drop_types(model: ModelProto) -> None:
    del model.graph.value_info[:]


def _markdown(result: dict[str, Any], report: Report) -> str:
    first = result["rows"][0]
    images = first["accuracy"]["data"]["items"] if first["accuracy"] else 0
    lines = [
        f"# {result['model']}, {report.prune.pattern}, effort {result['effort']}: three precisions from one run",
        "",
        f"{result['machine']['cpu']}, {result['machine']['cores']} cores, ONNX Runtime on the CPU; {images} images; "
        f"pruning {report.prune.seconds:.0f} s; `python -m benchmarks.deployment --model {result['model']} "
        f"--effort {result['effort']}`.",
        "The ONNX checker (full) and strict shape inference accept every sparse file.",
        "",
        "| precision | sparse, MiB | dense | layers 2:4 | Polygraphy | kept in FP32 | parity | dense top-1 "
        f"| sparse top-1 | KL | p50 ms, batch 1 and 8 | {first['compiler']}, 8.6 8.9 12.0 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        found = Accuracy.model_validate(row["accuracy"])
        assert found.metric is not None
        fp32 = row["precision"] == "fp32"
        dense = share(found.metric.dense if fp32 else found.metric.same_precision)
        sparse = share(found.metric.sparse)
        times = ", ".join(f"{row['p50_ms'][batch]:.2f}" for batch in (1, 8))
        verdict = "accepted" if row["accepted"] else f"refused: {'; '.join(row['messages'])}"
        lines.append(
            f"| {row['precision']} | {row['sparse']} | {row['dense']} | {row['layers']} | {row['polygraphy']} sparse "
            f"| {row['kept_in_fp32']} | {row['parity']:.1e} | {dense} | {sparse} "
            f"| {divergence(found):.4f} | {times} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
