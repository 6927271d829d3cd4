"""Killed and resumed: `kill -9` at random moments of a run, and the weights that its continuation ends with.

    SNOWSDEPLOY_DATA=... python -m benchmarks.faults --model resnet20 --kills 10

Writes `results/faults-MODEL-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.command import arguments, differences, finish, start
from benchmarks.measure import Row
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, write_rows
from snowsdeploy.files import write_text_atomic


def main() -> None:
    """One run that is left alone, then one for each kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"faults-{options.model}-{machine_name()}"
    enter_data()
    rng, rows = random.Random(options.seed), list[Row]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def command(run: Path, *more: str) -> list[str]:
            return [*arguments("prune", options.model, {"samples": options.samples, "out": run}), *more]

        started = time.perf_counter()
        finish(start(command(folder / "whole")))
        whole = time.perf_counter() - started
        for kill in range(options.kills):
            run, moment = folder / f"killed-{kill}", rng.uniform(0.02, 0.98) * whole
            process = start(command(run))
            try:
                process.communicate(timeout=moment)
                killed = False
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed = True
            solved = len(list((run / "layers").glob("*.safetensors"))) if (run / "layers").is_dir() else 0
            left = sorted(path.name for path in run.iterdir()) if run.is_dir() else []
            started = time.perf_counter()
            finish(start(command(run, "--resume")))
            apart = differences(folder / "whole", run)
            rows.append(
                {
                    "moment_s": round(moment, 1),
                    "killed": killed,
                    "solved": solved,
                    "left": left,
                    "resumed_s": round(time.perf_counter() - started, 1),
                }
                | apart
            )
            print(rows[-1], flush=True)
    repeat = f"python -m benchmarks.faults --model {options.model} --kills {options.kills}"
    write_rows(Path(f"{out}.json"), repeat, rows)
    write_text_atomic(Path(f"{out}.md"), table(rows, whole))
    print(table(rows, whole))


def table(rows: list[Row], whole: float) -> str:
    """Markdown: a line a kill."""
    lines = [
        f"A run takes {whole:.0f} s. After `kill -9` at a moment, `--resume` to the end; tensors compared bit by bit.",
        "",
        "| killed after, s | on disk | resumed, s | tensors that differ | masks that differ |",
        "|---:|---:|---:|---:|---:|",
    ]
    for r in sorted(rows, key=lambda r: r["moment_s"]):
        when = f"{r['moment_s']}" if r["killed"] else "ended before"
        lines.append(
            f"| {when} | {r['solved']} | {r['resumed_s']} | {r['tensors_that_differ']} | {r['masks_that_differ']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
