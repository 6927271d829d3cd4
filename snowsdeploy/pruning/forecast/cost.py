"""What solves cost, from solves on one and two batches: the rest of a run is a sum of the same terms.

A unit's time is `fixed + a * images + c * products * images in a product`. Two solves, one with a second batch that the
products do not see, and one timed product tell the three apart; masks, which do not depend on how many images there
are, are timed by themselves. Units of the same shapes share a measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.batch import Batch
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.patterns.masks import mask_by_score
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.pruning.flow.storage import Storage
from snowsdeploy.pruning.flow.windows import Window
from snowsdeploy.pruning.prune import Plan
from snowsdeploy.pruning.schedule import Unit
from snowsdeploy.pruning.solve.final import final_pass
from snowsdeploy.pruning.solve.reconstruct import Reconstruction
from snowsdeploy.pruning.solve.start import Select
from snowsdeploy.pruning.solve.streams import Streams, open_streams
from snowsdeploy.selectors.base import Choice

T = TypeVar("T")

_ROWS = 64  # of a layer, below which its masks are not worth to be cut


@dataclass(frozen=True)
class Terms:
    """Seconds of a solve by what they grow with.

    Attributes:
        masks: To choose them.
        fixed: Factors and the rest that does not depend on images.
        image: For each image.
        product: For each image of each curvature product.
        products: How many there were.
    """

    masks: float
    fixed: float
    image: float
    product: float
    products: int

    def seconds(self, images: float, seen: float) -> float:
        """With so many images, so many of them in a product."""
        return self.masks + self.fixed + self.image * images + self.product * self.products * seen


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds until a device has finished, and the result."""
    _settle()
    started = time.perf_counter()
    result = run()
    _settle()
    return time.perf_counter() - started, result


def _settle() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Timed:
    """A selector's choices, timed once and remembered; of a large layer on some of its rows, the rest by magnitude.

    The rows of an N:M mask do not depend on each other, so that time grows with them.
    """

    def __init__(self, select: Select, apart: Pattern | None) -> None:
        """Around `Masks.select`.

        Args:
            select: What is timed.
            apart: The pattern, where each row is chosen on its own; None for whole layers.
        """
        self._select, self._apart = select, apart
        self._choices: dict[str, Choice] = {}
        self.seconds = 0.0

    def __call__(self, name: str, weight: Tensor, moments: Callable[[], Tensor]) -> Choice:
        """A layer's mask."""
        if name not in self._choices:
            gram = moments()

            def choose(rows: int) -> tuple[float, Choice]:
                return timed(lambda: self._select(name, weight[:rows], lambda: gram))

            rows, some = len(weight), max(_ROWS, len(weight) // 16)
            if self._apart is None or rows < 4 * some:
                seconds, choice = choose(rows)
            else:
                (one, _), (two, part) = choose(some), choose(2 * some)
                seconds = max(two, one + (two - one) / some * (rows - some))
                rest = mask_by_score(weight[2 * some :].abs(), self._apart)
                choice = Choice(torch.cat([part.mask, rest]))
            self.seconds += seconds
            self._choices[name] = choice
        return self._choices[name]


def measure_units(
    graph: ProgramGraph,
    batches: Sequence[Batch],
    units: Sequence[Unit],
    plan: Plan,
    *,
    select: Select,
    apart: Pattern | None,
    metrics: dict[Node, Tensor],
    storage: Callable[[str], Storage],
    observer: Callable[[int, Unit], None],
) -> tuple[list[tuple[Terms, int]], float]:
    """Each unit's terms.

    Args:
        graph: The program's graph.
        batches: Two, of the size of the run.
        units: Front to back.
        plan: What is solved.
        select: As `least_squares_start` wants it.
        apart: As in `Timed`.
        metrics: As `Streams` wants them.
        storage: Where activations of a name are in the run.
        observer: Told each unit that is measured.

    Returns:
        For each unit its terms and the number of the unit that they were measured on; seconds an image of the forward
        passes between units.

    Raises:
        NumericsError: As the run.
    """
    state = graph.state_values()
    pairs = [
        open_streams(graph, batches[:count], state, state, metrics=metrics, storage=storage(str(count)))
        for count in (1, 2)
    ]
    found: dict[object, tuple[Terms, int]] = {}
    costs, forward = [], 0.0
    for number, unit in enumerate(units):
        window = plan.method.window(graph, unit)
        for one in pairs:
            for stream in (one.dense, one.pruned):
                forward += timed(partial(stream.advance, window.calls[0]))[0]
        signature = window.signature
        if signature not in found:
            observer(number, unit)
            found[signature] = (
                _measure(graph, plan.method, window, unit, pairs, choose=Timed(select, apart), images=len(batches[0])),
                number,
            )
        costs.append(found[signature])
    return costs, forward / (len(batches[0]) + sum(map(len, batches[:2])))


def _measure(
    graph: ProgramGraph,
    method: Reconstruction,
    window: Window,
    unit: Unit,
    pairs: Sequence[Streams],
    *,
    choose: Timed,
    images: int,
) -> Terms:
    method = replace(method.on(graph, window), curvature_batches=1)
    trials = 2 if method.targets == "auto" else 1
    share = method.targets if isinstance(method.targets, float) else 1.0
    totals, counts, product = [], [], 0.0
    for streams in pairs:
        before = choose.seconds
        posed, problem = timed(partial(method.problem, window, unit, streams, choose, share))
        solved, solution = timed(partial(method.newton_steps, problem))
        totals.append(posed + solved - (choose.seconds - before))
        counts.append(solution.newton.products)
        if streams is pairs[0] and solution.newton.products:
            one = partial(problem.objective.curvature(problem.start), problem.start)
            product = min(timed(one)[0] for _ in range(2))
    image = max(totals[1] - totals[0] - (counts[1] - counts[0]) * product, 0.0)
    fixed = max(totals[0] - image - counts[0] * product, 0.0)
    return Terms(choose.seconds, trials * fixed, trials * image / images, product / images, trials * counts[0])


def measure_final(
    graph: ProgramGraph,
    batches: Sequence[Batch],
    units: Sequence[Unit],
    method: Reconstruction,
    pattern: Pattern,
    *,
    metrics: dict[Node, Tensor],
    storage: Callable[[str], Storage],
) -> Terms:
    """The final pass' terms, from three of it on one batch, on two of which its products see one, and on two.

    Raises:
        NumericsError: As the run.
    """
    state = graph.state_values()
    names = [name for unit in units for name in unit.weights]
    masks = {name: mask_by_score(state[graph.placeholder(name)].abs(), pattern) for name in names}
    pruned = state | {graph.placeholder(n): state[graph.placeholder(n)] * mask for n, mask in masks.items()}
    seconds, products = [], 0
    for count, seen in ((1, 1), (2, 1), (2, 2)):
        place = storage(f"final-{count}-{seen}")
        streams = open_streams(graph, batches[:count], state, pruned, metrics=metrics, storage=place)
        one = replace(method, curvature_batches=seen)
        spent, solution = timed(partial(final_pass, graph, units, streams, masks, one))
        seconds.append(spent)
        products = solution.report.products
    image, product = max(seconds[1] - seconds[0], 0.0), max(seconds[2] - seconds[1], 0.0) / max(products, 1)
    fixed = max(seconds[0] - image - product * products, 0.0)
    images = len(batches[0])
    return Terms(0.0, fixed, image / images, product / images, products)
