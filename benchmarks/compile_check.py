"""Does NVIDIA's compiler take what we export, for each precision and GPU generation? Needs no GPU.

    python -m benchmarks.compile_check [--only NAME ...]

Random weights and images: the compiler sees shapes and operators. Each model is pruned to 2:4, exported in FP32, FP16
and INT8, its layout proven in each file, run in ONNX Runtime, and built by TensorRT-RTX with sparse weights on for each
compute capability. Writes `results/compile-check.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.models import RESULTS, machine, random_model
from snowsdeploy.files import write_text_atomic
from snowsdeploy.measure.compilation import check_compilation
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.job import run_main_job
from snowsdeploy.values import Report, Variant
from snowsdeploy_exporters import OnnxExporter

MODELS = {  # timm's name -> size of its images
    "resnet18": 224,
    "resnet50": 224,
    "deit_tiny_patch16_224": 224,
    "convnext_atto": 224,
    "swin_tiny_patch4_window7_224": 224,
    "mobilenetv3_small_100": 224,
    "efficientnet_b0": 224,
}
CAPABILITIES = ("8.6", "8.9", "12.0")
PRECISIONS = ("fp32", "fp16", "int8")
Row = dict[str, Any]


def main() -> None:
    """Export, compile, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=tuple(MODELS), default=tuple(MODELS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            report = _run(name, MODELS[name], Path(folder))
            for variant in report.variants:
                rows.append(_row(name, report, variant))
                print(rows[-1], flush=True)
    result = {"machine": machine(), "rows": rows}
    write_text_atomic(options.out / "compile-check.json", json.dumps(result, indent=2) + "\n")
    text = _markdown(result)
    write_text_atomic(options.out / "compile-check.md", text)
    print(text)


def _run(name: str, size: int, folder: Path) -> Report:
    values = random_model(name, size, folder / "images.npz", 16)
    values |= {"samples": 16, "precision": PRECISIONS, "out": folder / "run"}
    report = run_main_job(read_settings(MainJob, values), OnnxExporter())
    assert report is not None  # of one process
    return report


def _row(name: str, report: Report, variant: Variant) -> Row:
    found = {c: check_compilation(variant.sparse.path, (c,)) for c in CAPABILITIES}
    assert variant.sparsity is not None
    assert variant.parity is not None
    return {
        "model": name,
        "precision": variant.precision,
        "layers": len(report.prune.pruned),
        "coverage": variant.sparsity.coverage,
        "kept_in_fp32": len(variant.sparse.kept),
        "parity": variant.parity.worst_relative_l2,
        "compiler": found[CAPABILITIES[0]].compiler,
        "accepted": {c: result.accepted for c, result in found.items()},
        "messages": {c: result.messages for c, result in found.items() if result.messages},
        "seconds": sum(result.seconds for result in found.values()),
    }


def _markdown(result: dict[str, Any]) -> str:
    lines = [
        f"# {result['rows'][0]['compiler']}, sparse weights on, random weights and images",
        "",
        f"{result['machine']['cpu']}, {result['machine']['cores']} cores, no GPU; `python -m benchmarks.compile_check`",
        "",
        f"| model | precision | 2:4 layers | of all weights | kept in FP32 | parity | {' | '.join(CAPABILITIES)} | s |",
        f"|---|---|---|---|---|---|{'---|' * len(CAPABILITIES)}---|",
    ]
    for row in result["rows"]:
        verdicts = " | ".join("accepted" if row["accepted"][c] else "**refused**" for c in CAPABILITIES)
        lines.append(
            f"| {row['model']} | {row['precision']} | {row['layers']} | {row['coverage']:.0%} | {row['kept_in_fp32']} "
            f"| {row['parity']:.1e} | {verdicts} | {row['seconds']:.1f} |"
        )
    messages = [
        f"- {r['model']}, {r['precision']}, {c}: {'; '.join(m)}"
        for r in result["rows"]
        for c, m in r["messages"].items()
    ]
    return "\n".join([*lines, "", *messages]).rstrip() + "\n"


if __name__ == "__main__":
    main()
