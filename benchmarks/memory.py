"""Peak memory against the plan: one place of a large model a process, and a growing number of images.

    python -m benchmarks.memory                 every case
    python -m benchmarks.memory --only vit_base_patch16_224

Large models have random weights and images: shapes and sizes are all that matters. Masks by SparseGPT and two products
a solve, since neither which mask nor how many products changes what is held. Growth is the whole of the ResNet-20 that
SNOWSDEPLOY_DATA has. Writes `results/memory-MACHINE.json` and `.md`; rows of other cases stay.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ByteSize, TypeAdapter

from benchmarks.measure import Row
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, random_model, read_rows, write_rows
from snowsdeploy.files import write_text_atomic
from snowsdeploy.runtime.environment import peak_memory_bytes
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.job import run_prune


@dataclass(frozen=True)
class Case:
    """What is solved.

    Attributes:
        model: timm's name; `resnet20` is the benchmark's own.
        layers: A pattern of their names; `all`: those that are pruned without one.
        images: How many.
        budget: `--memory`.
        sensitivity: None is the effort's own; 0 spares the whole model's graph, which takes longest on a processor.
    """

    model: str
    layers: str
    images: int
    budget: str
    sensitivity: float | None = None


CASES = {
    "vit_base_patch16_224 early": Case("vit_base_patch16_224", "blocks.0.*", 256, "8GiB"),
    "vit_base_patch16_224 middle": Case("vit_base_patch16_224", "blocks.5.*", 256, "8GiB"),
    "vit_base_patch16_224 late": Case("vit_base_patch16_224", "blocks.11.*", 256, "8GiB"),
    "resnet50 early": Case("resnet50", "layer1.0.*", 256, "8GiB"),
    "resnet50 middle": Case("resnet50", "layer3.0.*", 256, "8GiB"),
    "resnet50 late": Case("resnet50", "layer4.2.*", 256, "8GiB"),
    "resnet20 512 images": Case("resnet20", "all", 512, "1.4GiB"),
    "resnet20 2048 images": Case("resnet20", "all", 2048, "1.4GiB"),
    "resnet20 8000 images": Case("resnet20", "all", 8000, "1.4GiB"),
    "resnet50 early 1024 images": Case("resnet50", "layer1.0.*", 1024, "16GiB", sensitivity=0.0),
    "vit_large_patch16_224 early 1024 images": Case("vit_large_patch16_224", "blocks.0.*", 1024, "16GiB", 0.0),
}


def main() -> None:
    """A process for each case, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases that begin so")
    parser.add_argument("--one", choices=CASES, help="this case alone, in this process, to standard output")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, CASES[options.one])))
        return
    out = options.out.resolve() / f"memory-{machine_name()}"
    for name in CASES:
        if not name.startswith(options.only):
            continue
        command = [sys.executable, "-m", "benchmarks.memory", "--one", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = {row["case"]: row for row in [*read_rows(Path(f"{out}.json")), json.loads(output.splitlines()[-1])]}
        rows = [found[case] for case in CASES if case in found]
        write_rows(Path(f"{out}.json"), "python -m benchmarks.memory", rows)
        write_text_atomic(Path(f"{out}.md"), table(rows))
        print(table(rows), flush=True)


def measure(name: str, case: Case) -> Row:
    """Solve it with the solver's settings of the default effort, two products a step."""
    with tempfile.TemporaryDirectory() as folder:
        if case.model in MODELS:
            enter_data()
            settings = {key: value for key, value in MODELS[case.model].items() if key != "eval_data"}
        else:
            settings = random_model(case.model, 224, Path(folder) / "images.npz", case.images)
            for key in ("solver", "batch_size"):
                settings.pop(key)
        settings |= {
            "samples": case.images,
            "memory": TypeAdapter(ByteSize).validate_python(case.budget),
            "selector": "sparsegpt",
            "permute": False,
            "cg_steps": 2,
            "out": Path(folder) / "run",
        }
        if case.layers != "all":
            settings["include"] = (case.layers,)
        if case.sensitivity is not None:
            settings["sensitivity"] = case.sensitivity
        report = run_prune(read_settings(MainJob, settings)).report
    assert report.memory is not None
    return {
        "case": name,
        "layers": case.layers,
        "images": case.images,
        "budget": case.budget,
        "storage": report.memory.storage,
        "batch": report.memory.batch_size,
        "planned_gib": round(report.memory.peak_bytes / 2**30, 2),
        "peak_gib": round(peak_memory_bytes() / 2**30, 2),
        "seconds": round(report.seconds, 1),
    }


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| case | layers | images | budget | activations | batch | planned, GiB | peak, GiB | seconds |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['case']} | {r['layers']} | {r['images']} | {r['budget']} | {r['storage']} | {r['batch']} "
        f"| {r['planned_gib']} | {r['peak_gib']} | {r['seconds']} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
