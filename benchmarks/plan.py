"""What was predicted and what it took: `snowsdeploy plan`, then the run, whose accuracy is in the same row.

    SNOWSDEPLOY_DATA=... python -m benchmarks.plan --model resnet20 --efforts fast,default,max
    SNOWSDEPLOY_DATA=... python -m benchmarks.plan --model deit-tiny

A process each, so that peak memory is each one's own. Writes `results/plan-MODEL-MACHINE.json` and `.md`; rows that are
there already are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.classification import figures
from benchmarks.command import arguments, finish, start
from benchmarks.measure import Row
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, read_rows, write_rows
from snowsdeploy.files import write_text_atomic
from snowsdeploy.values import Report, RunPlan


def main() -> None:
    """Run what is asked for and not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--patterns", default="2:4")
    parser.add_argument("--efforts", default="default")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-permute", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"plan-{options.model}-{machine_name()}"
    enter_data()
    store = Path(f"{out}.json")
    rows = read_rows(store)
    more: Row = {"permute": False} if options.no_permute else {}
    for pattern in options.patterns.split(","):
        for effort in options.efforts.split(","):
            settings = {"pattern": pattern, "effort": effort, "samples": options.samples, **more}
            if any(r["settings"] == settings for r in rows):
                continue
            rows.append(measure(options.model, settings, options.threads))
            print(json.dumps(rows[-1]), flush=True)
            write_rows(store, f"python -m benchmarks.plan --model {options.model} --efforts {options.efforts}", rows)
    write_text_atomic(Path(f"{out}.md"), table(rows))
    print(table(rows))


def measure(model: str, settings: Row, threads: int) -> Row:
    """Plan, then run."""
    planned = RunPlan.model_validate_json(
        finish(start([*arguments("plan", model, settings), "--quiet", "--json"], threads=threads))
    )
    with tempfile.TemporaryDirectory() as folder:
        whole = settings | {"out": Path(folder) / "run", "latency_batch": (1,), "latency_runs": 5}
        finish(start([*arguments("prune-export", model, whole), "--quiet"], threads=threads), allowed=(0, 4, 5))
        report = Report.model_validate_json((Path(folder) / "run" / "report.json").read_text())
    accuracy = report.variants[0].accuracy
    assert accuracy is not None
    assert report.peak_memory_bytes is not None
    return {
        "settings": settings,
        "planned_s": round(planned.seconds, 1),
        "prune_s": round(report.prune.seconds, 1),
        "planning_s": round(planned.measured_seconds, 1),
        "planned_gib": round(planned.memory.peak_bytes / 2**30, 2),
        "peak_gib": round(report.peak_memory_bytes / 2**30, 2),
        **figures(accuracy),
        "images": planned.images,
    }


def table(rows: list[Row]) -> str:
    """Markdown: prediction beside what it took."""
    lines = [
        f"Dense top-1 {rows[0]['dense_top1']:.2f} %. Seconds of pruning; the peak includes export and validation.",
        "",
        "| pattern, images | effort | planned, s | took, s | ratio | planned, GiB | peak, GiB | top-1, % | KL, nats |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for r in rows:
        s = r["settings"]
        name = s["effort"] + ("" if s.get("permute", True) else ", no permutation")
        lines.append(
            f"| {s['pattern']}, {r['images']} | {name} | {r['planned_s']:.0f} | {r['prune_s']:.0f} "
            f"| {r['planned_s'] / r['prune_s']:.2f} | {r['planned_gib']:.2f} | {r['peak_gib']:.2f} "
            f"| {r['top1']:.2f} [{r['low']:.2f}, {r['high']:.2f}] | {r['kl']:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
