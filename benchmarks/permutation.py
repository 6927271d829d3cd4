"""What the order of channels is worth: as it is, at random (the control), and as each score's search finds it.

    SNOWSDEPLOY_DATA=... python -m benchmarks.permutation --model resnet20 --pattern 2:4 --seeds 0,1

Masks and exact least squares of each layer (`--solver k0`), or the whole method with `--solver snows`. Writes
`results/permutation-MODEL-MACHINE.json` and `.md`; rows that are there already are not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from benchmarks.measure import Row, run
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, read_rows, write_rows
from snowsdeploy.batch import Batch
from snowsdeploy.files import write_text_atomic
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.permutation.apply import permute_program
from snowsdeploy.permutation.groups import find_groups
from snowsdeploy.progress import NullObserver
from snowsdeploy.pruning.importance.saliency import Score
from snowsdeploy.pruning.permute import permute_channels

Order = Literal["as it is", "random"] | Score
ORDERS: tuple[Order, ...] = ("as it is", "random", *get_args(Score))


def main() -> None:
    """Run what is asked for and not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--pattern", default="2:4")
    parser.add_argument("--solver", choices=("none", "k0", "snows"), default="k0")
    parser.add_argument("--selector", default="exchange")
    parser.add_argument("--orders", default=",".join(ORDERS))
    parser.add_argument("--seeds", default="0", help="of images, search and control")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"permutation-{options.model}-{machine_name()}"
    enter_data()
    store = Path(f"{out}.json")
    rows = read_rows(store)
    common = {"pattern": options.pattern, "solver": options.solver, "selector": options.selector}
    for seed in map(int, options.seeds.split(",")):
        for order in options.orders.split(","):
            settings = common | {"samples": options.samples, "seed": seed}
            if any(r["name"] == order and r["settings"] == settings for r in rows):
                continue
            rows.append(measure(order, options.model, settings))
            print(json.dumps({"order": order, **settings, "top1": rows[-1]["top1"], "kl": rows[-1]["kl"]}), flush=True)
            command = f"python -m benchmarks.permutation --model {options.model} --pattern {options.pattern}"
            write_rows(store, command, rows)
    write_text_atomic(Path(f"{out}.md"), table(rows))
    print(table(rows))


def measure(order: Order, model: str, settings: Row) -> Row:
    """One run, with the share of the magnitude score (or of what the search was given) that masks keep."""
    kept: Row = {}

    def reorder(program: Program, names: list[str], pattern: Pattern, batches: list[Batch]) -> Program:
        if order == "random":
            return shuffled(program, names, pattern, settings["seed"])
        assert order != "as it is"
        observer = NullObserver()
        permuted, found = permute_channels(
            program, names, pattern, batches, score=order, seed=settings["seed"], observer=observer
        )
        before, after = found.kept
        kept.update(kept_before=before, kept_after=after, search_seconds=round(found.seconds, 1), moved=found.error)
        return permuted

    return run(order, model, settings, None if order == "as it is" else reorder) | kept


def shuffled(program: Program, names: list[str], pattern: Pattern, seed: int) -> Program:
    """Every group's channels in a random order: the same function, and no better mask on average."""
    rng = np.random.default_rng(seed)
    groups = find_groups(ProgramGraph(program), names, pattern.m).groups
    return permute_program(program, [(group, rng.permutation(group.channels)) for group in groups])


def table(rows: list[Row]) -> str:
    """Markdown: a line an order, all seeds in it."""
    lines = [
        f"Dense top-1 {rows[0]['dense_top1']:.2f} %. Cells: a figure a seed. `kept`: the mean share of its score that",
        "a mask of each group keeps, before and after the search.",
        "",
        "| pattern | selector, solver | images | order | top-1, % | KL, nats | kept | search, s |",
        "|---|---|---:|---|---|---|---|---:|",
    ]
    groups: dict[tuple[str, str, int, str], list[Row]] = {}
    for r in rows:
        s = r["settings"]
        key = s["pattern"], f"{s['selector']}, {s['solver']}", r["images"], r["name"]
        groups.setdefault(key, []).append(r)
    for (pattern, method, images, order), found in groups.items():
        top1 = ", ".join(f"{r['top1']:.2f}" for r in found)
        kl = ", ".join(f"{r['kl']:.3f}" for r in found)
        kept = ", ".join(f"{r['kept_before']:.1%} -> {r['kept_after']:.1%}" for r in found if "kept_after" in r) or "-"
        seconds = ", ".join(f"{r['search_seconds']:.0f}" for r in found if "search_seconds" in r) or "-"
        lines.append(f"| {pattern} | {method} | {images} | {order} | {top1} | {kl} | {kept} | {seconds} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
