"""Ours against the public reference implementation of SNOWS: seconds to the same objective, layer by layer.

    git clone https://github.com/mazumder-lab/SNOWS /somewhere/SNOWS && git -C /somewhere/SNOWS checkout 750497f
    SNOWSDEPLOY_DATA=... python -m benchmarks.reference --reference /somewhere/SNOWS

The reference's code is read from the path that is given and mended in memory, because at that commit it does not
import: a function without a body gets `pass`, the module `helpers` is the one that holds what is imported from it, and
`joblib`, which its solver does not use here, is a stub. Its own settings hold: batches of 128, 3 passes, at most 1,000
CG iterations, absolute tolerance 1e-3.

Both solve one layer of ResNet-20 at a time on the same images, mask and dense input (its targets). Both results are
judged by our objective of the same K: the reference minimises a sum of mean squares over convolutions and activations,
ours a sum of relative errors over every counted operation. Our time includes windows, targets, factors and the
evaluation at the end. Writes `results/reference-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models import RESULTS, enter_data, machine, machine_name
from snowsdeploy.artifacts import Preprocessing, SourceInfo
from snowsdeploy.files import write_text_atomic
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.trace import trace
from snowsdeploy.pruning.activations import Activations
from snowsdeploy.pruning.objective import Sample, Support, WindowObjective
from snowsdeploy.pruning.preconditioner import make_preconditioner
from snowsdeploy.pruning.start import least_squares_start
from snowsdeploy.pruning.windows import Window, cut_window
from snowsdeploy.solver.cg import ConjugateGradient
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.sparsity.pattern import Pattern, mask_by_score

Row = dict[str, Any]
PATTERN = Pattern(2, 4)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYERS = "layer1.1.conv1,layer2.1.conv1,layer3.1.conv1"


def main() -> None:
    """Compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of mazumder-lab/SNOWS at 750497f")
    parser.add_argument("--layers", default=LAYERS)
    parser.add_argument("--horizons", default="5,20")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3, help="of ours; its runs are long")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    out = options.out.resolve() / f"reference-{machine_name()}"
    reference = load_reference(options.reference.resolve() / "CNN_pruning")
    enter_data()
    model, images = load_model(reference), load_images(options.images)
    wrong = product_error(reference)
    print(f"its product in two chunks: relative error {wrong:.2f}", flush=True)
    rows = []
    for horizon in map(int, options.horizons.split(",")):
        for layer in options.layers.split(","):
            rows.append(compare(reference, model, images, layer, horizon, options.repeats))
            print(json.dumps(rows[-1]), flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    document = {"command": " ".join(sys.argv), "machine": machine(), "chunked_product_error": wrong, "rows": rows}
    write_text_atomic(Path(f"{out}.json"), json.dumps(document, indent=1) + "\n")
    write_text_atomic(Path(f"{out}.md"), table(rows, wrong))
    print(table(rows, wrong))


def load_reference(folder: Path) -> Any:  # noqa: ANN401 - modules made at run time
    """Its solver, its ResNet and its helpers as modules."""
    sys.modules.setdefault("joblib", stub("joblib", delayed=None, Parallel=None))
    helpers = load_module(folder / "prune" / "helpers.py", "helpers")
    solver = load_module(folder / "prune" / "SNOWS.py", "reference_snows")
    resnet = load_module(folder / "model" / "resnet_cifar10_manual.py", "reference_resnet")
    return SimpleNamespace(solver=solver, resnet=resnet, helpers=helpers)


def stub(name: str, **members: object) -> ModuleType:
    """A module with those names in it."""
    module = ModuleType(name)
    module.__dict__.update(members)
    return module


def load_module(path: Path, name: str) -> ModuleType:
    """Run a file as a module; a function without a body gets one."""
    if not path.is_file():
        sys.exit(f"--reference holds no {path.name}: give a checkout of mazumder-lab/SNOWS at 750497f")
    lines = path.read_text(encoding="utf-8").splitlines()
    for _ in range(10):
        try:
            code = compile("\n".join(lines), str(path), "exec")
            break
        except IndentationError as error:
            owner = int(str(error.msg).rsplit(" ", 1)[-1])  # "... after function definition on line N"
            lines.insert(owner, "    pass")
    module = stub(name)
    sys.modules[name] = module
    exec(code, module.__dict__)
    return module


def load_model(reference: Any) -> nn.Module:  # noqa: ANN401
    """The trained ResNet-20 in the reference's class; a padding shortcut is a 1x1 convolution with fixed weights."""
    model: nn.Module = reference.resnet.resnet20()
    state = torch.load("resnet20_cifar10.th", weights_only=True, map_location="cpu")["state_dict"]
    state = {k.removeprefix("module.").replace("linear.", "fc."): v for k, v in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("downsample" in name for name in missing)
    for stage in ("layer2", "layer3"):
        conv, norm = model.get_submodule(f"{stage}.0.downsample").children()
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        weight = torch.zeros_like(conv.weight)
        outputs, inputs = weight.shape[:2]
        for channel in range(inputs):
            weight[(outputs - inputs) // 2 + channel, channel] = 1
        conv.weight.data, norm.eps = weight, 0.0
    model.name = "resnet20_cifar10"  # type: ignore[assignment]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


def load_images(count: int) -> Tensor:
    """Calibration images `[count, 3, 32, 32]`, normalised."""
    pixels = np.load("cifar10_train8k.npz")["x"][:count]
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def product_error(reference: Any) -> float:  # noqa: ANN401
    """Relative error of its Hessian-vector product when it splits the kept weights into two chunks, in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 40, dtype=torch.float64, generator=generator)
    weight = torch.randn(30, 40, dtype=torch.float64, generator=generator).requires_grad_()
    mask = torch.rand(30, 40, generator=generator) > 0.5
    loss = torch.tanh(x @ weight.T).square().mean()
    gradient = torch.autograd.grad(loss, weight, create_graph=True)[0] * mask
    vector = torch.randn(int(mask.sum()), dtype=torch.float64, generator=generator)
    product = reference.solver.hessian_vector_product_chunks
    whole = product(gradient, weight, vector, mask)
    chunks = product(gradient, weight, vector, mask, max_chunk_size=mask.sum() // 2 + 1)
    return float((chunks - whole).norm() / whole.norm())


def compare(reference: Any, model: nn.Module, images: Tensor, layer: str, horizon: int, repeats: int) -> Row:  # noqa: ANN401, PLR0917
    """One layer by both; ours until it is at or below what the reference reached."""
    preprocessing = Preprocessing(input_size=(3, 32, 32), mean=MEAN, std=STD)
    program = trace(copy.deepcopy(model), preprocessing, SourceInfo(source="resnet20", format="factory"))
    graph = ProgramGraph(program)
    name = f"{layer}.weight"
    mask = mask_by_score(program.state_dict[name].abs(), PATTERN)
    weight, theirs = solve_reference(reference, model, images, layer=layer, mask=mask, horizon=horizon)
    judge = make_objective(graph, name, images, mask, horizon)[1]
    reached = judge.value(judge.support.gather([weight]))
    start = judge.value(judge.support.gather([program.state_dict[name]]))
    runs = [solve_ours(graph, name, images, mask=mask, horizon=horizon, goal=reached) for _ in range(repeats)]
    seconds, ours, products = statistics.median(r[0] for r in runs), runs[0][1], runs[0][2]
    return {
        "layer": layer,
        "horizon": horizon,
        "images": len(images),
        "masked": start,
        "reference": reached,
        "ours": ours,
        "reference_seconds": round(theirs, 2),
        "our_seconds": round(seconds, 2),
        "our_products": products,
        "ratio": round(theirs / seconds, 1) if ours <= reached else None,
    }


def solve_reference(
    reference: Any,  # noqa: ANN401
    model: nn.Module,
    images: Tensor,
    *,
    layer: str,
    mask: Tensor,
    horizon: int,
) -> tuple[Tensor, float]:
    """Its weights for one layer, and its seconds without the forward pass to the layer's block."""
    stage, block, conv = layer.split(".")
    blocks = reference.solver.get_blocks(model)
    index = [name for name, _ in blocks].index(f"{stage}.{block}")
    with torch.no_grad():
        x = images
        for _, module in blocks[:index]:
            x = module(x)
    dense, sparse = copy.deepcopy(model), copy.deepcopy(model)
    started = time.perf_counter()
    weight, _ = reference.solver.solve_for_W_given_Z(
        mask.float(),
        dense,
        sparse,
        x,
        index,
        horizon,
        len(blocks),
        torch.device("cpu"),
        2,
        4,
        dict(model.named_parameters())[f"{layer}.weight"].detach().clone(),
        conv,
        blocks,
        newton_steps=3,
        CG_iterations=1000,
        batch_size=128,
    )
    return weight.detach() * mask, time.perf_counter() - started


def make_objective(
    graph: ProgramGraph, name: str, images: Tensor, mask: Tensor, horizon: int
) -> tuple[Window, WindowObjective]:
    """Our objective on the dense prefix, with its activations as targets."""
    window = cut_window(graph, [name], horizon)
    stream = Activations(graph, list(images.split(128)), graph.state_values())
    stream.advance(window.calls[0])
    tensors = {p: stream.value(p) for p in window.weights}
    samples = []
    for batch in range(len(stream)):
        live = stream.live_ins(batch, window.live_ins)
        with torch.no_grad():
            samples.append(Sample(live, window(tensors, live)))
    return window, WindowObjective(window, Support((mask,)), samples)


def solve_ours(
    graph: ProgramGraph, name: str, images: Tensor, *, mask: Tensor, horizon: int, goal: float
) -> tuple[float, float, int]:
    """Seconds until the objective is at or below the goal, the objective there, and the products spent."""
    started = time.perf_counter()
    window, objective = make_objective(graph, name, images, mask, horizon)
    original = {window.weights[0]: graph.program.state_dict[name]}
    select: Callable[[Tensor, Tensor], Tensor] = lambda weight, gram: mask  # noqa: E731
    begin = least_squares_start(window, original, objective.samples, select, ridge=1e-6, names=[name])
    x = objective.support.gather([begin.tensors[window.weights[0]]])
    value, products = objective.value(x), 0
    for _ in range(10):
        if value <= goal:
            break
        apply = make_preconditioner("kronecker", objective, x, begin.factors)
        object.__setattr__(objective, "preconditioner", apply)
        newton = NewtonCG(max_steps=1, cg=ConjugateGradient(max_iterations=10))
        solution = newton.solve(objective, x)
        x, value, products = solution.value, solution.loss, products + solution.products
    return time.perf_counter() - started, value, products


def table(rows: list[Row], wrong: float) -> str:
    """Markdown."""
    lines = [
        f"Its Hessian-vector product in two chunks, as above 1e5 kept weights: relative error {wrong:.2f}.",
        "",
        "| layer | K | images | masked | reference | ours | reference, s | ours, s | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        ratio = f"{r['ratio']}x" if r["ratio"] else "not reached"
        lines.append(
            f"| {r['layer']} | {r['horizon']} | {r['images']} | {r['masked']:.4f} | {r['reference']:.5f} | "
            f"{r['ours']:.5f} | {r['reference_seconds']} | {r['our_seconds']} | {ratio} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
