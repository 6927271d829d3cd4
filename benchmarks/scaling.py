"""One job in several processes: the same weights, and what a product costs.

    SNOWSDEPLOY_DATA=... python -m benchmarks.scaling --model resnet20 --processes 1,2,4

Gloo between processes of one thread each; beyond the machine's cores they share them. Writes
`results/scaling-MODEL-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.command import arguments, differences, finish, start
from benchmarks.measure import Row
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, write_rows
from snowsdeploy.files import write_text_atomic
from snowsdeploy.values import PruneReport


def main() -> None:
    """Runs interleaved, the first of one process is what the others are compared with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"scaling-{options.model}-{machine_name()}"
    enter_data()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for repeat in range(options.repeats):
            for processes in map(int, options.processes.split(",")):
                run = folder / f"{processes}-{repeat}"
                settings = {"samples": options.samples, "batch_size": 32, "out": run}
                finish(start(arguments("prune", options.model, settings), processes=processes))
                report = PruneReport.model_validate_json((run / "prune.json").read_text())
                apart = differences(folder / "1-0", run)
                spent = sum(s.newton_seconds for s in report.solves)
                rows.append(
                    {
                        "processes": processes,
                        "repeat": repeat,
                        "seconds": round(report.seconds, 1),
                        "newton_seconds": round(spent, 2),
                        "products": sum(s.products for s in report.solves),
                    }
                    | apart
                )
                print(rows[-1], flush=True)
    command = f"python -m benchmarks.scaling --model {options.model} --processes {options.processes}"
    write_rows(Path(f"{out}.json"), command, rows)
    write_text_atomic(Path(f"{out}.md"), table(rows))
    print(table(rows))


def table(rows: list[Row]) -> str:
    """Markdown: medians over the repeats."""
    lines = [
        "Processes of one thread each; medians. Newton: gradients, products, preconditioner and line searches.",
        "",
        "| processes | whole, s | Newton, s | against one process | tensors that differ | masks that differ |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    counts = list(dict.fromkeys(r["processes"] for r in rows))
    medians = {n: statistics.median(r["newton_seconds"] for r in rows if r["processes"] == n) for n in counts}
    for n in counts:
        found = [r for r in rows if r["processes"] == n]
        lines.append(
            f"| {n} | {statistics.median(r['seconds'] for r in found):.1f} | {medians[n]:.1f} "
            f"| {medians[counts[0]] / medians[n]:.2f} | {max(r['tensors_that_differ'] for r in found)} "
            f"| {max(r['masks_that_differ'] for r in found)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
