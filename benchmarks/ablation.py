"""Accuracy against time: what each choice of the solver is worth, measured in the ONNX file.

    SNOWSDEPLOY_DATA=... python -m benchmarks.ablation --model resnet20
    SNOWSDEPLOY_DATA=... python -m benchmarks.ablation --model deit-tiny --only default --seeds 0,1,2

Writes `results/ablation-MODEL-PATTERN-MACHINE.json`, `.md` and `.svg`; a row that the JSON file has already is not run
again, so that a stopped benchmark continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.measure import Row, run
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, read_rows, write_rows
from snowsdeploy.files import write_text_atomic

PAPER = {"variables": "weights", "joint": False, "targets": "input", "selector": "magnitude", "sensitivity": 0.0}
# Name -> settings; what is not named is the default effort's.
CONFIGURATIONS: dict[str, Row] = {
    **{
        f"{s} mask only": {"masks_only": True, "effort": "fast", "selector": s}
        for s in ("magnitude", "sparsegpt", "exchange")
    },
    "fast": {"effort": "fast"},
    "default": {},
    "max": {"effort": "max"},
    "K=0, magnitude": {"effort": "fast", "selector": "magnitude"},
    **{f"K={k}, single, paper's targets": {**PAPER, "horizon": k} for k in (1, 3, 8, 16)},
    **{f"K={k}, single, dense targets": {**PAPER, "horizon": k, "targets": "dense"} for k in (3, 8)},
    "block, single": {"joint": False},
    "block, joint, one block a solve": {"solve_layers": 1},
    "model": {"horizon": "model"},
    **{f"{s} mask": {"selector": s} for s in ("magnitude", "sparsegpt")},
    "targets input": {"targets": "input"},
    "targets half": {"targets": 0.5},
    "targets auto": {"targets": "auto", "held_back": 0.125},
    "no output curvature": {"sensitivity": 0.0},
    "plain Cholesky preconditioner": {"preconditioner": "cholesky"},
    "diagonal preconditioner": {"preconditioner": "diagonal"},
    "no preconditioner": {"preconditioner": "none"},
    "30 CG": {"cg_steps": 30},
    "two Newton steps": {"newton_steps": 2},
    "weights only": {"variables": "weights"},
    "curvature on 64 images": {"curvature_samples": 64},
    "curvature on all images": {"curvature_samples": "all"},
    "norms re-estimated": {"reestimate_norms": True},
    "final pass": {"final_steps": 1},
    "bfloat16 products": {"products": "bfloat16"},
    **{f"{n} images": {"samples": n} for n in (64, 128, 512, 1024, 2048)},
}


def main() -> None:
    """Run the configurations that are asked for and are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--pattern", default="2:4")
    parser.add_argument("--only", action="append", help="name of a configuration; repeatable")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--samples", type=int, help="calibration images where the configuration does not say")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"ablation-{options.model}-{options.pattern.replace(':', 'of')}-{machine_name()}"
    out.parent.mkdir(parents=True, exist_ok=True)
    enter_data()
    names = options.only or list(CONFIGURATIONS)
    if unknown := [n for n in names if n not in CONFIGURATIONS]:
        sys.exit(f"no configuration {unknown[0]}; there are: {', '.join(CONFIGURATIONS)}")
    store = Path(f"{out}.json")
    rows = read_rows(store)
    for seed in map(int, options.seeds.split(",")):
        for name in names:
            settings = {"samples": options.samples} if options.samples else {}
            settings |= CONFIGURATIONS[name] | {"seed": seed, "pattern": options.pattern}
            if any(r["name"] == name and r["settings"] == settings for r in rows):
                continue
            rows.append(run(name, options.model, settings))
            print(json.dumps({k: v for k, v in rows[-1].items() if k != "settings"}), flush=True)
            command = f"python -m benchmarks.ablation --model {options.model} --pattern {options.pattern}"
            write_rows(store, command, rows)
    write_text_atomic(Path(f"{out}.md"), table(rows))
    plot(rows, Path(f"{out}.svg"), f"{options.model}, {options.pattern}")
    print(table(rows))


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        f"Dense top-1 {rows[0]['dense_top1']:.2f} %. KL of the logits from the dense model's, in nats.",
        "",
        "| configuration | seed | images | solve, s | top-1, % | 95 % interval | KL |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for r in rows:
        interval = f"{r['low']:.2f} to {r['high']:.2f}"
        seed = r["settings"]["seed"]
        lines.append(
            f"| {r['name']} | {seed} | {r['images']} | {r['seconds']} | {r['top1']:.2f} | {interval} | {r['kl']:.4f} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path, title: str) -> None:
    """Top-1 against seconds; the effort levels are marked."""
    mpl.use("svg")
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for r in rows:
        effort = r["name"] in ("fast", "default", "max")
        axes.plot(r["seconds"], r["top1"], "o", color="tab:red" if effort else "tab:blue", ms=9 if effort else 5)
        axes.annotate(r["name"], (r["seconds"], r["top1"]), xytext=(5, 3), textcoords="offset points", fontsize=7)
    axes.axhline(rows[0]["dense_top1"], color="grey", ls="--", label="dense")
    best = max(r["top1"] for r in rows)
    axes.set(
        xscale="log",
        xlabel="solve, seconds",
        ylabel="top-1, %",
        title=title,
        ylim=(best - 4, rows[0]["dense_top1"] + 0.5),
    )
    axes.legend()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
