"""Our solver on one layer, with the reference's window: the first K + 1 convolutions and activations from the layer on.

The reference counts only those, so that its K reaches further than the same number of our counted operations; here
both reconstruct the same outputs of the same images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.models import RESNET20
from snowsdeploy.models.factory import call_factory
from snowsdeploy.models.graph import base_name, image_dependent, operation_kind
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.models.trace import trace
from snowsdeploy.pruning.flow.activations import Activations
from snowsdeploy.pruning.flow.windows import Window, cut_window
from snowsdeploy.pruning.solve.objective import Sample, Support, WindowObjective
from snowsdeploy.pruning.solve.preconditioner import make_preconditioner
from snowsdeploy.pruning.solve.start import least_squares_start
from snowsdeploy.selectors.base import Choice
from snowsdeploy.solver.cg import ConjugateGradient, Product
from snowsdeploy.solver.newton import NewtonCG
from snowsdeploy.values import Preprocessing, SourceInfo

Loss = Literal["relative", "mean-square"]
BATCH = 128
RIDGE = 1e-3


class StoppedError(Exception):
    """The goal is reached, or the time limit has passed."""


@dataclass
class OurRun:
    """What one solve of ours did.

    Attributes:
        trace: `(seconds, objective)` at each evaluation: masked weights' least squares, then line searches.
        reached: Whether an evaluation is at or below the goal.
        products: Curvature products spent.
    """

    trace: list[tuple[float, float]] = field(default_factory=list)
    reached: bool = False
    products: int = 0

    @property
    def seconds(self) -> float:
        """Until the last evaluation."""
        return self.trace[-1][0]

    @property
    def objective(self) -> float:
        """The lowest."""
        return min(value for _, value in self.trace)


def load_resnet20(count: int) -> tuple[ProgramGraph, dict[str, Tensor], Tensor]:
    """The model's graph, its weights, and normalised images `[count, 3, 32, 32]`, from the current folder."""
    state = torch.load(RESNET20["model"], weights_only=True, map_location="cpu")["state_dict"]
    state = {k.removeprefix("module."): v for k, v in state.items()}
    model = call_factory(RESNET20["arch"], {}, option="the model")
    model.load_state_dict(state)
    preprocessing = Preprocessing(input_size=(3, 32, 32), mean=RESNET20["mean"], std=RESNET20["std"])
    graph = ProgramGraph(trace(model, preprocessing, SourceInfo(source="resnet20", format="factory")))
    pixels = torch.from_numpy(np.load(RESNET20["data"])["x"][:count]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(RESNET20[key]).view(3, 1, 1) for key in ("mean", "std"))
    return graph, state, (pixels - mean) / std


def reference_window(graph: ProgramGraph, name: str, horizon: int) -> Window:
    """The outputs that the reference hooks: convolutions and activations, shortcuts have none."""
    first = graph.layers[name].calls[0]
    inside = image_dependent(graph.nodes[graph.order[first] + 1 :], first)
    counted = [
        n
        for n in graph.nodes[graph.order[first] :]
        if n in inside and (base_name(n) == "conv2d" or operation_kind(n, graph.image_values) == "activation")
    ]
    return cut_window(graph, [name], 0, until=counted[: horizon + 1])


def as_mean_square(objective: WindowObjective) -> WindowObjective:
    """The reference's loss on the same window: a mean square a term, terms summed."""
    outputs = range(len(objective.window.outputs))
    means = [_sum(objective.samples, k, 2) / _sum(objective.samples, k, 0) for k in outputs]
    return replace(objective, shares=means)


def _sum(samples: Sequence[Sample], output: int, power: int) -> float:
    return sum(float(s.targets[output].double().pow(power).sum()) for s in samples)


class Watched:
    """An objective that keeps a record, and stops the solve at a goal or a time."""

    def __init__(self, inner: WindowObjective, run: OurRun, started: float, goal: float, limit: float) -> None:
        self._inner, self._run, self._started, self._goal, self._limit = inner, run, started, goal, limit

    def value(self, x: Tensor) -> float:
        """As the inner objective; the value is recorded.

        Raises:
            StoppedError: The goal is reached, or the time has passed.
        """
        value, run = self._inner.value(x), self._run
        run.trace.append((time.perf_counter() - self._started, value))
        run.reached = value <= self._goal
        if run.reached or run.seconds > self._limit:
            raise StoppedError
        return value

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As the inner objective."""
        return self._inner.value_and_gradient(x)

    def curvature(self, x: Tensor) -> Product:
        """As the inner objective; products are counted."""
        product = self._inner.curvature(x)

        def counted(v: Tensor) -> Tensor:
            self._run.products += 1
            return product(v)

        return counted

    def precondition(self, residual: Tensor) -> Tensor:
        """As the inner objective."""
        return self._inner.precondition(residual)


class LayerProblem:
    """One layer on its images: masked, with the dense layer's outputs as targets on the dense input.

    The forward pass of the images to the layer happens here and is in no run's time.
    """

    def __init__(self, graph: ProgramGraph, name: str, mask: Tensor, images: Tensor, horizon: int) -> None:
        self._graph, self._name, self._horizon, self.mask = graph, name, horizon, mask
        self._stream = Activations(graph, list(images.split(BATCH)), graph.state_values())
        self._stream.advance(graph.layers[name].calls[0])

    def objective(self, loss: Loss) -> WindowObjective:
        """Our sum of relative errors, or the reference's sum of mean squares; cuts the window, computes the targets."""
        window, stream = reference_window(self._graph, self._name, self._horizon), self._stream
        tensors = {p: stream.value(p) for p in window.weights}
        samples = []
        for batch in range(len(stream)):
            live = stream.live_ins(batch, window.live_ins)
            with torch.no_grad():
                samples.append(Sample(live, window(tensors, live)))
        objective = WindowObjective(window, Support((self.mask,)), samples)
        return objective if loss == "relative" else as_mean_square(objective)

    def solve(self, loss: Loss, goal: float, limit: float, cg_steps: int) -> OurRun:
        """Ours until the objective is at or below the goal.

        The window, its targets, least-squares start and preconditioner are in the time. `RIDGE` and the
        preconditioner are the defaults of `snowsdeploy.pruning.solve.reconstruct`.
        """
        run, started = OurRun(), time.perf_counter()
        objective = self.objective(loss)
        window, names = objective.window, [self._name]
        original = {p: self._stream.value(p) for p in window.weights}
        begin = least_squares_start(
            window, original, objective.samples, lambda *_: Choice(self.mask), ridge=RIDGE, names=names
        )
        x = objective.support.gather([begin.tensors[p] for p in window.weights])
        newton = NewtonCG(max_steps=100, cg=ConjugateGradient(max_iterations=cg_steps), tolerance=0.0)
        try:
            Watched(objective, run, started, goal, limit).value(x)
            apply = make_preconditioner("kronecker", objective, x, begin.factors)
            newton.solve(Watched(objective.having(preconditioner=apply), run, started, goal, limit), x)
        except StoppedError:
            pass
        return run
