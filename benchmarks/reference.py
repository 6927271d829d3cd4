"""Ours against the public reference implementation of SNOWS: seconds to the same objective, layer by layer.

    git clone https://github.com/mazumder-lab/SNOWS /somewhere/SNOWS && git -C /somewhere/SNOWS checkout 750497f
    SNOWSDEPLOY_DATA=... python -m benchmarks.reference --reference /somewhere/SNOWS

Both solve one layer of ResNet-20 at a time: same images, 2:4 magnitude mask, dense input of the layer, and the same
window, whose outputs are the first K + 1 convolutions and activations (the reference's count of K). The reference runs
as it is, to its end or the time limit; its weights after each of its steps are judged afterwards on all images, and
the lowest value is the goal. Ours runs until it is at or below that goal. The ratio is the reference's seconds to its
lowest value by ours to the goal: what it spends after its best step is not held against it.

The reference minimises a sum of mean squares, ours a sum of relative errors. Each layer has a row for either: both are
judged by that loss, and ours minimises it, so that the rows `mean-square` are on the reference's ground. For each layer
the reference's loss of the masked weights is compared with ours on the same window, so that a difference of windows
cannot pass.

Writes `results/reference-MACHINE.json` after each layer and prints a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks import reference_code, reference_problem
from benchmarks.models import RESULTS, enter_data, machine, machine_name
from snowsdeploy.files import write_text_atomic
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern

Row = dict[str, Any]
Run = TypeVar("Run", reference_code.ReferenceRun, reference_problem.OurRun)
PATTERN = Pattern(2, 4)
LAYERS = "layer1.1.conv1,layer2.1.conv1,layer3.1.conv1"
LOSSES = ("relative", "mean-square")
SHORT = 20.0  # seconds: a run below is repeated
WINDOW_TOLERANCE = 1e-3


def main() -> None:
    """Compare, print and store."""
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    out = options.out.resolve() / f"reference-{machine_name()}.json"
    reference = reference_code.load_reference(options.reference.resolve())
    enter_data()
    graph, state, images = reference_problem.load_resnet20(options.images)
    theirs = reference_code.build_model(reference, state)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images[:8]), graph.program.run(images[:8])[0], rtol=1e-3, atol=1e-3)
    names = [layer.name for n, layer in graph.layers.items() if n.startswith("layer")]
    layers = names if options.layers == "all" else options.layers.split(",")
    if unknown := [n for n in layers if n not in names]:
        sys.exit(f"--layers: no layer {unknown[0]}; there are: {', '.join(names)}")
    if unknown := [n for n in options.losses.split(",") if n not in LOSSES]:
        sys.exit(f"--losses: no loss {unknown[0]}; there are: {', '.join(LOSSES)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    document: Row = {
        "command": command(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "reference": {"commit": "750497f", "settings": reference_code.SETTINGS},
        "product_errors": reference_code.product_errors(reference),
        "rows": [],
    }
    for horizon in map(int, options.horizons.split(",")):
        for layer in layers:
            rows = compare(reference, theirs, graph, images, layer=layer, horizon=horizon, options=options)
            document["rows"] += rows
            print(f"{layer}, K={horizon}: ratio {', '.join(ratio_text(row) for row in rows)}", flush=True)
            write_text_atomic(out, json.dumps(document, indent=1) + "\n")
    print(table(document))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of mazumder-lab/SNOWS at 750497f")
    parser.add_argument("--layers", default=LAYERS, help="names with commas between, or all (default: %(default)s)")
    parser.add_argument("--horizons", default="5,20", help="K, with commas between (default: %(default)s)")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3, help=f"of runs below {SHORT:.0f} s; the median counts")
    parser.add_argument("--time-limit", type=float, default=1800.0, help="seconds for each solve of either")
    parser.add_argument("--losses", default=",".join(LOSSES), help="with commas between (default: %(default)s)")
    parser.add_argument("--cg-steps", type=int, default=10, help="ours, for each Newton step")
    parser.add_argument("--threads", type=int, help="of PyTorch, for both")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def command() -> str:
    """What was run, without the paths of this machine."""
    words, hide = ["python -m benchmarks.reference"], False
    for word in sys.argv[1:]:
        name, equals, _ = word.partition("=")
        path = name in ("--reference", "--out")
        words.append("PATH" if hide else f"{name}=PATH" if path and equals else word)
        hide = path and not equals
    return " ".join(words)


def compare(
    reference: Any,  # noqa: ANN401
    model: nn.Module,
    graph: ProgramGraph,
    images: Tensor,
    *,
    layer: str,
    horizon: int,
    options: argparse.Namespace,
) -> list[Row]:
    """One layer by both, a row for each loss; the reference runs once for all of them."""
    name = f"{layer}.weight"
    weight = graph.program.state_dict[name]
    mask = mask_by_score(weight.abs(), PATTERN)
    problem: Row = {"layer": layer, "mask": mask, "horizon": horizon}
    layer_problem = reference_problem.LayerProblem(graph, name, mask, images, horizon)
    expected = layer_problem.objective("mean-square").value(weight[mask])
    errors = check_window(reference, model, images, expected, problem)
    limit = options.time_limit
    runs = repeated(lambda: reference_code.solve(reference, model, images, **problem, limit=limit), options.repeats)
    shared = {"layer": layer, "horizon": horizon, "images": len(images), "kept": int(mask.sum())}
    return [
        shared | judge(layer_problem, runs, loss, options) | {"product_errors": errors}
        for loss in options.losses.split(",")
    ]


def judge(
    problem: reference_problem.LayerProblem,
    runs: Sequence[reference_code.ReferenceRun],
    loss: reference_problem.Loss,
    options: argparse.Namespace,
) -> Row:
    """The reference's steps by one loss, and ours until it is at or below the lowest of them."""
    objective = problem.objective(loss)
    traces = [[(t, objective.value(w[problem.mask])) for t, w in run.steps] for run in runs]
    masked, goal = traces[0][0][1], min(value for _, value in traces[0])
    to_goal = [next(t for t, v in trace if v <= goal) for trace in traces if min(v for _, v in trace) <= goal]
    mine = repeated(lambda: problem.solve(loss, goal, options.time_limit, options.cg_steps), options.repeats)
    theirs_seconds, our_seconds = statistics.median(to_goal), statistics.median(run.seconds for run in mine)
    reached = all(run.reached for run in mine)
    return {
        "loss": loss,
        "outputs": len(objective.window.outputs),
        "masked": masked,
        "reference": {
            "objective": goal,
            "objective_at_end": traces[0][-1][1],
            "seconds_to_best": theirs_seconds,
            "seconds": statistics.median(run.seconds for run in runs),
            "finished": runs[0].finished,
            "trace": traces[0],
        }
        | spent(runs),
        "ours": {
            "objective": mine[0].objective,
            "start": mine[0].trace[0][1],
            "seconds": our_seconds,
            "reached": reached,
            "trace": mine[0].trace,
        }
        | spent(mine),
        "ratio": theirs_seconds / our_seconds if goal < masked and reached else None,
    }


def check_window(
    reference: Any,  # noqa: ANN401
    model: nn.Module,
    images: Tensor,
    expected: float,
    problem: Row,
) -> Row:
    """The reference's own loss of the masked weights must be ours; on the way the error of its first product."""
    errors: Row = {}

    def on_product(gradient: Tensor, weight: Tensor, vector: Tensor, mask: Tensor) -> None:
        for name, chunk in (("own limit", 1e5), ("limit at half", len(vector) // 2 + 1)):
            found = reference_code.product_error(reference, gradient, weight, vector, mask, chunk)
            errors.setdefault(name, found)

    once = reference_code.SETTINGS | {"newton_steps": 1, "CG_iterations": 1, "max_steps": 1, "batch_size": len(images)}
    run = reference_code.solve(
        reference, model, images, **problem, limit=float("inf"), on_product=on_product, settings=once
    )
    if run.last_loss is None or abs(run.last_loss - expected) > WINDOW_TOLERANCE * expected:
        sys.exit(
            f"{problem['layer']}: its loss of the masked weights is {run.last_loss}, ours on our window {expected}"
        )
    return errors


def repeated(run: Callable[[], Run], times: int) -> list[Run]:
    """Several runs where one is short."""
    runs = [run()]
    while runs[0].seconds < SHORT and len(runs) < times:
        runs.append(run())
    return runs


def spent(runs: Sequence[reference_code.ReferenceRun] | Sequence[reference_problem.OurRun]) -> Row:
    """How many runs, and the products of the first."""
    return {"runs": len(runs), "products": runs[0].products}


def ratio_text(row: Row) -> str:
    """A number, or why there is none."""
    if row["ratio"]:
        return f"{row['ratio']:.1f}"
    return "the reference made no step" if row["ours"]["reached"] else "not reached"


def table(document: Row) -> str:
    """Markdown."""
    lines = ["| its Hessian-vector product | kept weights | precision | relative error |", "|---|---:|---|---:|"]
    for e in document["product_errors"]:
        lines += [f"| its own chunk limit, 1e5 | {e['kept']} | {e['dtype']} | {e['relative_error']:.2g} |"]
    for r in {(r["layer"], r["horizon"]): r for r in document["rows"]}.values():
        for name, error in r["product_errors"].items():
            lines.append(f"| {r['layer']}, K={r['horizon']}, {name} | {r['kept']} | float32 | {error:.2g} |")
    lines += [
        "",
        "| layer | K | outputs | images | loss | masked | reference, best | ours | to its best, s | to its end, s "
        "| ours, s | ratio |",
        "|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in document["rows"]:
        theirs, ours = r["reference"], r["ours"]
        end = f"{theirs['seconds']:.1f}" + ("" if theirs["finished"] else ", stopped")
        lines.append(
            f"| {r['layer']} | {r['horizon']} | {r['outputs']} | {r['images']} | {r['loss']} | {r['masked']:.4g} | "
            f"{theirs['objective']:.4g} | {ours['objective']:.4g} | {theirs['seconds_to_best']:.1f} | {end} | "
            f"{ours['seconds']:.2f} | {ratio_text(r)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
