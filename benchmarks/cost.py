"""What a Gauss-Newton product costs: against one forward pass, against the machine's matrix products, and as it grows.

    python -m benchmarks.cost

Random weights: speed needs no data. Medians of `--repeats` runs. Writes `results/cost-MACHINE.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmarks.models import RESULTS, machine, machine_name
from snowsdeploy.files import write_text_atomic
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.trace import trace
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.windows import cut_window
from snowsdeploy.pruning.schedule import block_end
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective
from snowsdeploy.runtime.environment import peak_memory_bytes
from snowsdeploy.values import Preprocessing, SourceInfo

Row = dict[str, Any]


class Blocks(nn.Module):
    """Residual blocks of two 3x3 convolutions of one width."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.a = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(depth))
        self.b = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(depth))
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, 3, H, W]` to `[batch, 10]`."""
        x = self.stem(x)
        for a, b, norm in zip(self.a, self.b, self.norm, strict=True):
            x = x + b(torch.relu(norm(a(x))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]  # nn.Module calls are untyped


def encoder(width: int, depth: int) -> nn.Module:
    """A vision transformer on 4x4 patches of 32x32 images."""
    return VisionTransformer(
        img_size=32, patch_size=4, embed_dim=width, depth=depth, num_heads=width // 64, num_classes=10
    )


CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "conv 64": (lambda: Blocks(64, 3), 16),
    "conv 256": (lambda: Blocks(256, 3), 16),
    "conv 512": (lambda: Blocks(512, 3), 16),
    "transformer 192": (lambda: encoder(192, 2), 32),
    "transformer 768": (lambda: encoder(768, 2), 32),
}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    peak = matrix_rate(options.repeats)
    print(f"matrix products, 2048 x 2048 float32: {peak:.1f} GFLOP/s")
    rows = []
    cases = [(name, 32, layers) for name in CASES for layers in (2, 4)]
    cases += [("conv 256", images, 2) for images in (16, 64, 128)]
    for name, images, layers in cases:
        rows.append(measure(name, images, layers, repeats=options.repeats, peak=peak))
    out = options.out.resolve() / f"cost-{machine_name()}"
    out.parent.mkdir(parents=True, exist_ok=True)
    document = {"command": "python -m benchmarks.cost", "machine": machine(), "matrix_gflops": peak, "rows": rows}
    write_text_atomic(Path(f"{out}.json"), json.dumps(document, indent=1) + "\n")
    write_text_atomic(Path(f"{out}.md"), table(rows, peak))
    print(table(rows, peak))


def matrix_rate(repeats: int) -> float:
    """The machine's rate of large matrix products in GFLOP/s."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / median_seconds(lambda: a @ b, repeats) / 1e9


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, warmed up once."""
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(name: str, images: int, layers: int, *, repeats: int, peak: float) -> Row:
    """One window from the first `layers` layers to the end of the last one's block."""
    make, size = CASES[name]
    torch.manual_seed(0)
    preprocessing = Preprocessing(input_size=(3, size, size), mean=(0.5,) * 3, std=(0.5,) * 3)
    program = trace(make().eval(), preprocessing, SourceInfo(source=name, format="factory"))
    graph = ProgramGraph(program)
    weights = [w for w in graph.layers if not w.startswith(("stem", "patch", "head"))][:layers]
    end = block_end(graph, weights[-1])
    assert end is not None
    window = cut_window(graph, weights, 0, until=(end,))
    state = graph.state_values()
    stream = Activations(graph, [torch.randn(images, 3, size, size)], state)
    stream.advance(window.calls[0])
    live = stream.live_ins(0, window.live_ins)
    tensors = {p: state[p] for p in window.weights}
    with torch.no_grad():
        sample = Sample(live, tuple(y + 0.01 for y in window(tensors, live)))
    support = Support(tuple(mask_by_score(t.abs(), Pattern(2, 4)) for t in tensors.values()))
    objective = WindowObjective(window, support, [sample])
    x = support.gather(list(tensors.values()))
    product, v = objective.curvature(x), torch.randn_like(x)
    forward = median_seconds(lambda: objective.value(x), repeats)
    seconds = median_seconds(lambda: product(v), repeats)
    rate = objective.product_flops(x) / seconds / 1e9
    return {
        "window": name,
        "layers": layers,
        "images": images,
        "kept": len(x),
        "forward_ms": round(1000 * forward, 2),
        "product_ms": round(1000 * seconds, 2),
        "ratio": round(seconds / forward, 2),
        "gflops": round(rate, 1),
        "share_of_peak": round(rate / peak, 3),
        "peak_memory_mib": round(peak_memory_bytes() / 2**20),
    }


def table(rows: list[Row], peak: float) -> str:
    """Markdown."""
    lines = [
        f"Large float32 matrix products: {peak:.1f} GFLOP/s. Ratio: one Gauss-Newton product over one forward of it.",
        "",
        "| window | layers | images | kept weights | forward, ms | product, ms | ratio | GFLOP/s | of peak |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['window']} | {r['layers']} | {r['images']} | {r['kept']} | {r['forward_ms']} | {r['product_ms']} | "
        f"{r['ratio']} | {r['gflops']} | {r['share_of_peak']:.0%} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
