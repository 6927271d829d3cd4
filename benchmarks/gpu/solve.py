"""The solve on a GPU: all linears of a ViT-B/16 on 1,024 images, and the same weights as on the CPU within a bound.

    python -m benchmarks.gpu.solve --out FOLDER [--device cpu --images 8 --only blocks.0.*]

Random weights and images: shapes decide the time. Rows: the whole model in float32, with TF32 and bfloat16 products,
and with compiled ones; what `snowsdeploy plan` predicted; one block solved on the GPU and on the CPU, and how far they
are apart. A test runs it on the CPU with a small model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.models import random_model, write_rows
from snowsdeploy.files import write_text_atomic
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.job import run_plan, run_prune

PRODUCTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "tf32": {"products": "tf32"},
    "bfloat16": {"products": "bfloat16"},
    "tf32, compiled": {"products": "tf32", "compile_products": True},
}


def main() -> None:
    """Every row, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--products", default=";".join(PRODUCTS), help="rows, separated by semicolons")
    parser.add_argument("--selector", default="sparsegpt")
    parser.add_argument("--block", default="blocks.5.*", help="what is compared with the CPU")
    parser.add_argument("--block-images", type=int, default=64)
    parser.add_argument("--only", help="layers of the whole-model rows; all without")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common = random_model(options.model, options.size, folder / "images.npz", options.images)
        common |= {"selector": options.selector, "batch_size": 64, "permute": False}
        common.pop("solver")
        include = {"include": (options.only,)} if options.only else {}

        def config(run: str, **more: Any) -> MainJob:  # noqa: ANN401 - settings of any kind
            given = common | {"samples": options.images, "device": options.device, "out": folder / run}
            return read_settings(MainJob, given | more)

        planned = run_plan(config("plan", **include))
        for label in options.products.split(";"):
            more = PRODUCTS[label]
            if options.device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            report = run_prune(config(label, **include, **more)).report
            rows.append(
                {
                    "row": label,
                    "layers": len(report.pruned),
                    "images": options.images,
                    "seconds": round(report.seconds, 1),
                    "planned_seconds": round(planned.seconds, 1) if label == "float32" else None,
                    "newton_seconds": round(sum(s.newton_seconds for s in report.solves), 2),
                    "products": sum(s.products for s in report.solves),
                    "tflops": round(_tflops(report.solves), 2),
                    "precision": report.solves[0].product_precision,
                    "storage": report.memory.storage if report.memory else "",
                    "batch": report.memory.batch_size if report.memory else 0,
                    "peak_device_gib": _peak(options.device),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
        runs = [options.device, "cpu"]
        for number, device in enumerate(runs):
            more = {"device": device, "samples": options.block_images, "include": (options.block,)}
            run_prune(config(f"block-{number}", **more))
        one, other = (load_file(folder / f"block-{number}" / "pruned.safetensors") for number in range(2))
        rows.append(
            {
                "row": f"one block, {options.device} against cpu",
                "images": options.block_images,
                "weights_with_another_mask": sum(int(((one[n] != 0) != (other[n] != 0)).sum()) for n in one),
                "largest_error": max(float((one[n] - other[n]).norm() / (other[n].norm() or 1.0)) for n in one),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    write_rows(out / "solve.json", "python -m benchmarks.gpu.solve", rows)
    write_text_atomic(out / "solve.md", table(rows))
    print(table(rows))


def _tflops(solves: Any) -> float:  # noqa: ANN401
    """Of products, over all the time of Newton's method."""
    seconds = sum(s.newton_seconds for s in solves)
    return sum(s.product_flops * s.products for s in solves) / seconds / 1e12 if seconds else 0.0


def _peak(device: str) -> float | None:
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.startswith("cuda") else None


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| products | layers | images | seconds | planned | Newton, s | TFLOP/s | activations | peak, GiB | in words |",
        "|---|---:|---:|---:|---:|---:|---:|---|---:|---|",
    ]
    lines += [
        f"| {r['row']} | {r['layers']} | {r['images']} | {r['seconds']} | {r['planned_seconds'] or ''} "
        f"| {r['newton_seconds']} | {r['tflops']} | {r['storage']}, {r['batch']} | {r['peak_device_gib'] or ''} "
        f"| {r['precision']} |"
        for r in rows[:-1]
    ]
    last = rows[-1]
    return "\n".join(lines) + (
        f"\n\n{last['row']}, {last['images']} images: {last['weights_with_another_mask']} weights have another mask; "
        f"largest relative difference of a tensor {last['largest_error']:.2g}.\n"
    )


if __name__ == "__main__":
    main()
