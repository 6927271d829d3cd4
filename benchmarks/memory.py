"""Peak memory against the plan: one solve early, in the middle and late in a large model, in a process each.

    python -m benchmarks.memory --budget 8GiB

Random weights and images: shapes and sizes are all that matters. Masks by SparseGPT and two products a solve, since
neither which mask nor how many products changes what is held. Writes `results/memory-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import ByteSize, TypeAdapter

from benchmarks.measure import Row
from benchmarks.models import RESULTS, machine_name, random_model, write_rows
from snowsdeploy.config import RunConfig, build_config
from snowsdeploy.files import write_text_atomic
from snowsdeploy.pipeline import prune
from snowsdeploy.progress import NullObserver
from snowsdeploy.validation.environment import peak_memory_bytes

# timm's name -> what is solved: early, middle, late
CASES: dict[str, dict[str, str]] = {
    "vit_base_patch16_224": {"early": "blocks.0.*", "middle": "blocks.5.*", "late": "blocks.11.*"},
    "resnet50": {"early": "layer1.0.*", "middle": "layer3.0.*", "late": "layer4.2.*"},
}


def main() -> None:
    """A process for each case, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="8GiB")
    parser.add_argument("--images", default="256", help="separated by commas")
    parser.add_argument("--only", help="MODEL:PLACE")
    parser.add_argument("--one", help="MODEL:PLACE:IMAGES alone, to standard output")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    budget = TypeAdapter(ByteSize).validate_python(options.budget)
    if options.one:
        name, place, images = options.one.split(":")
        print(json.dumps(measure(name, place, int(images), budget)))
        return
    rows: list[Row] = []
    cases = (
        [options.only] if options.only else [f"{name}:{place}" for name, places in CASES.items() for place in places]
    )
    for case in cases:
        for images in options.images.split(","):
            command = [
                sys.executable,
                "-m",
                "benchmarks.memory",
                "--one",
                f"{case}:{images}",
                "--budget",
                options.budget,
            ]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(json.loads(output.splitlines()[-1]))
            print(json.dumps(rows[-1]), flush=True)
    out = options.out.resolve() / f"memory-{machine_name()}"
    command_line = f"python -m benchmarks.memory --budget {options.budget} --images {options.images}"
    write_rows(Path(f"{out}.json"), command_line, rows)
    write_text_atomic(Path(f"{out}.md"), table(rows))
    print(table(rows))


def measure(name: str, place: str, images: int, budget: int) -> Row:
    """Solve one place of one model at the default effort."""
    with tempfile.TemporaryDirectory() as folder:
        settings = random_model(name, 224, Path(folder) / "images.npz", images)
        for key in ("solver", "batch_size"):
            settings.pop(key)
        values = settings | {
            "include": (CASES[name][place],),
            "samples": images,
            "memory": budget,
            "selector": "sparsegpt",
            "permute": False,
            "cg_steps": 2,
            "out": Path(folder) / "run",
        }
        config = build_config(RunConfig, values)
        report = prune(config, NullObserver())
    assert report.memory is not None
    return {
        "model": name,
        "place": place,
        "images": images,
        "budget_gib": round(budget / 2**30, 2),
        "storage": report.memory.storage,
        "batch": report.memory.batch_size,
        "planned_gib": round(report.memory.peak_bytes / 2**30, 2),
        "peak_gib": round(peak_memory_bytes() / 2**30, 2),
        "seconds": round(report.seconds, 1),
    }


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| model | place | images | budget, GiB | activations | batch | planned, GiB | peak, GiB | seconds |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['model']} | {r['place']} | {r['images']} | {r['budget_gib']} | {r['storage']} | {r['batch']} "
        f"| {r['planned_gib']} | {r['peak_gib']} | {r['seconds']} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
