"""Which weights stay: every selector alone, with exact least squares, and with SNOWS; what their papers claim, checked.

    SNOWSDEPLOY_DATA=... python -m benchmarks.selectors --model resnet20 --study 2of4 --seeds 0,1,2
    SNOWSDEPLOY_DATA=... python -m benchmarks.selectors --model resnet20 --study one-shot
    SNOWSDEPLOY_DATA=... python -m benchmarks.selectors --model resnet20 --study locality

`2of4`: all selectors under all solvers. `one-shot`: unstructured zeros over the whole model in one step, WoodFisher
against magnitude and the diagonal Fisher (Singh & Alistarh 2020, figure 2). `locality`: the loss models in 1, 14 and
140 steps, and with a penalty on the step (Laurent et al. 2020, sections 4 and 5). Writes
`results/selectors-STUDY-MODEL-MACHINE.json`, `.md` and `.svg`; rows that are there already are not run again, so that a
stopped benchmark continues.
"""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.measure import Row, run
from benchmarks.models import MODELS, RESULTS, enter_data, machine_name, read_rows, write_rows
from snowsdeploy.files import write_text_atomic

SOLVERS = ("none", "k0", "snows")
_LOSS_MODELS = ("lm", "qm", "obd")
_WOODFISHER = {"selector": "woodfisher"}
_DIAGONAL_FISHER = _WOODFISHER | {"selector_arg": {"block": 1}}
# On memorised images the gradient step of WoodTaylor needs far more damping than the paper's 0.1.
_WOODTAYLOR = {"selector": "woodtaylor", "selector_arg": {"damping": 10.0}}

MASKS: dict[str, Row] = {
    **{s: {"selector": s} for s in ("exchange", "magnitude", "sparsegpt", "wanda", "obc", "woodfisher")},
    **{f"{s}, 1 step": {"selector": s, "mask_steps": 1} for s in _LOSS_MODELS},
    "woodtaylor": {"selector": "woodtaylor"},
    "woodtaylor, damping 10": _WOODTAYLOR,
    "diagonal Fisher": _DIAGONAL_FISHER,
    "woodfisher, 3:4 first": _WOODFISHER | {"mask_steps": 2},
    **{f"{s}, 3:4 first": {"selector": s, "mask_steps": 2} for s in _LOSS_MODELS},
}
ONE_SHOT: dict[str, Row] = {
    "magnitude": {"selector": "magnitude", "threshold": "global"},
    "diagonal Fisher": _DIAGONAL_FISHER,
    "obd, 1 step": {"selector": "obd", "mask_steps": 1},
    "woodfisher": _WOODFISHER,
    "woodfisher, 10 steps": _WOODFISHER | {"mask_steps": 10},
    "woodfisher, a threshold a layer": _WOODFISHER | {"threshold": "layer"},
    "woodtaylor, damping 10": _WOODTAYLOR,
}
LOCALITY: dict[str, Row] = {
    **{f"{s}, {n} steps": {"selector": s, "mask_steps": n} for n in (1, 14, 140) for s in _LOSS_MODELS},
    **{
        f"{s}, 1 step, penalty 1": {"selector": s, "selector_arg": {"penalty": 1.0}, "mask_steps": 1}
        for s in ("lm", "qm")
    },
    "magnitude": {"selector": "magnitude", "threshold": "global"},
}
# Study -> patterns, selections, solvers
STUDIES: dict[str, tuple[tuple[str, ...], dict[str, Row], tuple[str, ...]]] = {
    "2of4": (("2:4",), MASKS, SOLVERS),
    "one-shot": (("50%", "60%", "70%", "80%", "90%"), ONE_SHOT, SOLVERS),
    "locality": (("80%", "90%", "95%"), LOCALITY, ("none", "k0")),
}
# The diagonal over 1,000 classes takes as many passes a batch: drawn classes there.
PASSES = {"deit-tiny": 16}


def main() -> None:
    """Run what is asked for and not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--study", choices=STUDIES, default="2of4")
    parser.add_argument("--solvers", default=",".join(SOLVERS))
    parser.add_argument("--patterns", help="of the study's, separated by commas; all without")
    parser.add_argument("--only", action="append", help="name of a selection; repeatable")
    parser.add_argument("--seeds", default="0", help="of the calibration images, separated by commas")
    parser.add_argument("--samples", type=int, default=1024, help="calibration images")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"selectors-{options.study}-{options.model}-{machine_name()}"
    out.parent.mkdir(parents=True, exist_ok=True)
    enter_data()
    patterns, selections, solvers = STUDIES[options.study]
    patterns = tuple(options.patterns.split(",")) if options.patterns else patterns
    store = Path(f"{out}.json")
    rows = read_rows(store)
    for seed in map(int, options.seeds.split(",")):
        for pattern in patterns:
            for name in options.only or selections:
                for solver in (s for s in solvers if s in options.solvers.split(",")):
                    common = {"solver": solver, "pattern": pattern, "seed": seed, "samples": options.samples}
                    settings = _settings(options.model, selections[name]) | common
                    if any(r["settings"] == settings for r in rows):
                        continue
                    rows.append(run(name, options.model, settings))
                    print(json.dumps({**settings, **{k: rows[-1][k] for k in ("top1", "kl", "seconds")}}), flush=True)
                    command = f"python -m benchmarks.selectors --model {options.model} --study {options.study}"
                    write_rows(store, command, rows)
    write_text_atomic(Path(f"{out}.md"), table(rows))
    plot(rows, Path(f"{out}.svg"), f"{options.model}, {options.study}")
    print(table(rows))


def _settings(model: str, selection: Row) -> Row:
    if model in PASSES and selection["selector"] in ("qm", "obd"):
        return selection | {"selector_arg": selection.get("selector_arg", {}) | {"passes": PASSES[model]}}
    return selection


def table(rows: list[Row]) -> str:
    """Markdown: a line a selection and pattern, a column a solver, the median over seeds and their range."""
    solvers = [s for s in SOLVERS if any(r["settings"]["solver"] == s for r in rows)]
    images = ", ".join(str(n) for n in sorted({r["images"] for r in rows}))
    lines = [
        f"Dense top-1 {rows[0]['dense_top1']:.2f} %. Calibration images: {images}. A cell: top-1 in percent, and the",
        "KL of the logits from the dense model's in nats; the median over seeds, the range in brackets. Seconds: the",
        "mask and the solve, the least of the runs; masks by the loss are chosen once for all solvers of a seed, which",
        "the first of its columns pays for.",
        "",
        f"| pattern | selection | seeds | {' | '.join(solvers)} | seconds |",
        f"|---|---|---:|{'---|' * len(solvers)}---:|",
    ]
    for (pattern, name), found in _grouped(rows):
        seeds = len({r["settings"]["seed"] for r in found})
        by_solver = [[r for r in found if r["settings"]["solver"] == s] for s in solvers]
        seconds = " / ".join(f"{min(r['seconds'] for r in cell):.0f}" if cell else "-" for cell in by_solver)
        cells = " | ".join(_cell(cell) for cell in by_solver)
        lines.append(f"| {pattern} | {name} | {seeds} | {cells} | {seconds} |")
    return "\n".join(lines) + "\n"


def _grouped(rows: list[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    def key(row: Row) -> tuple[str, str]:
        return row["settings"]["pattern"], row["name"]

    first = list(dict.fromkeys(key(r) for r in rows))  # in the order in which they were run
    ordered = sorted(rows, key=lambda r: (r["settings"]["pattern"], first.index(key(r))))
    return [(k, list(found)) for k, found in groupby(ordered, key)]


def _cell(rows: list[Row]) -> str:
    if not rows:
        return "-"
    by_top1 = sorted(rows, key=lambda r: r["top1"])
    middle = by_top1[len(rows) // 2]
    spread = f" [{by_top1[0]['top1']:.2f}, {by_top1[-1]['top1']:.2f}]" if len(rows) > 1 else ""
    return f"{middle['top1']:.2f}{spread}, {middle['kl']:.3f}"


def plot(rows: list[Row], path: Path, title: str) -> None:
    """A panel a pattern: KL of each selection, a mark a solver, every seed shown."""
    mpl.use("svg")
    patterns = list(dict.fromkeys(p for (p, _), _ in _grouped(rows)))
    names = list(dict.fromkeys(r["name"] for r in rows))[::-1]
    size = (4 + 2.2 * len(patterns), 1 + 0.32 * len(names))
    figure, panels = plt.subplots(1, len(patterns), figsize=size, sharey=True, squeeze=False, layout="constrained")
    marks = dict(zip(SOLVERS, ("o", "s", "D"), strict=True))
    colours = dict(zip(SOLVERS, ("tab:grey", "tab:blue", "tab:red"), strict=True))
    for axes, pattern in zip(panels[0], patterns, strict=True):
        for solver in SOLVERS:
            found = [r for r in rows if r["settings"]["solver"] == solver and r["settings"]["pattern"] == pattern]
            places = [names.index(r["name"]) for r in found]
            style = {"marker": marks[solver], "color": colours[solver], "label": solver}
            axes.plot([r["kl"] for r in found], places, ls="", ms=5, alpha=0.8, **style)
        axes.set(title=pattern, xscale="log", xlabel="KL from the dense model, nats")
        axes.set(yticks=range(len(names)), yticklabels=names)
        axes.grid(axis="y", lw=0.3)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SOLVERS))
    figure.suptitle(title)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
