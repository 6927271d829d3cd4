"""Seconds and peak memory of each selector on a block of a ViT-B/16: four layers, 7.1 million weights; a process each.

    python -m benchmarks.selector_cost

Random weights, images and labels: what is measured is arithmetic. No solver runs. `magnitude` looks at nothing, so that
its row is the cost of everything around a selector; the other rows hold that too. Writes
`results/selector-cost-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import Row
from benchmarks.models import RESULTS, machine_name, random_model, write_rows
from snowsdeploy.data.open import open_samples
from snowsdeploy.errors import SnowsDeployError
from snowsdeploy.files import write_text_atomic
from snowsdeploy.models.layers import decide_layers
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.plan import make_plan
from snowsdeploy.pruning.prune import prune_program
from snowsdeploy.runtime.environment import peak_memory_bytes
from snowsdeploy.selectors import SELECTORS
from snowsdeploy.settings.jobs import MainJob
from snowsdeploy.settings.presets import resolve
from snowsdeploy.settings.read import read_settings
from snowsdeploy.stages.program import load_program

# The papers' sizes ask for hours here; what is reduced is named in the table.
REDUCED: dict[str, Row] = {
    "woodfisher": {"gradients": 32},
    "woodtaylor": {"gradients": 32},
    "qm": {"passes": 8},
    "obd": {"passes": 8},
}


def main() -> None:
    """A process for each selector, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--block", type=int, default=5, help="which of the twelve")
    parser.add_argument("--one", choices=SELECTORS, help="this selector alone, to standard output")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.images, options.block)))
        return
    rows: list[Row] = []
    out = options.out.resolve() / f"selector-cost-{machine_name()}"
    for name in SELECTORS:
        command = [sys.executable, "-m", "benchmarks.selector_cost", "--one", name]
        command += ["--images", str(options.images), "--block", str(options.block)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
        write_rows(Path(f"{out}.json"), "python -m benchmarks.selector_cost", rows)
        write_text_atomic(Path(f"{out}.md"), table(rows, options.images))
    print(table(rows, options.images))


def measure(selector: str, images: int, block: int) -> Row:
    """Masks of one block's layers."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        settings = random_model("vit_base_patch16_224", 224, Path(folder) / "images.npz", images)
        chosen = {"selector": selector, "selector_arg": REDUCED.get(selector, {})}
        values = settings | chosen | {"include": (f"blocks.{block}.*",), "samples": images, "out": "unused"}
        config = read_settings(MainJob, values)
        program = load_program(config, config.data)
        sample = open_samples(config.data, program.preprocessing).sample(images, 0)
        batches = list(sample.batches(config.batch_size))
    pattern = Pattern.parse(config.pattern)
    decisions = decide_layers(ProgramGraph(program), pattern, config.include, config.exclude)
    names = [d.weight for d in decisions if d.prunable and d.weight]
    labels = torch.randint(0, 1000, (images,), generator=torch.Generator().manual_seed(0))
    plan = make_plan(resolve(config), len(batches))
    row: Row = {"selector": selector, "settings": REDUCED.get(selector, {}), "layers": len(names)}
    before, started = peak_memory_bytes(), time.perf_counter()
    try:
        prune_program(program, batches, names, pattern, plan, observer=NullObserver(), labels=labels)
    except SnowsDeployError as error:
        return row | {"refused": f"{error.what}: {error.seen}"}
    seconds, after = time.perf_counter() - started, peak_memory_bytes()
    return row | {"seconds": round(seconds, 1), "peak_gib": _gib(after), "before_gib": _gib(before)}


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / 2**30, 2)


def table(rows: list[Row], images: int) -> str:
    """Markdown."""
    lines = [
        f"One of the twelve blocks of a ViT-B/16, {images} images of 224 x 224 in batches of 8; peak memory of the",
        f"process, of which {rows[0].get('before_gib')} GiB were there before: the model and the images.",
        "",
        "| selector | settings | seconds | peak, GiB |",
        "|---|---|---:|---:|",
    ]
    for r in rows:
        settings = ", ".join(f"{k} {v}" for k, v in r["settings"].items()) or "default"
        result = f"{r['seconds']} | {r['peak_gib']}" if "seconds" in r else f"refused: {r['refused']} | -"
        lines.append(f"| {r['selector']} | {settings} | {result} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
