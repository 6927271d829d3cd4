"""Where Newton's method starts: exact masked least squares of each layer, whose factors precondition what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.distributed import all_sum
from snowsdeploy.errors import NumericsError, first_line
from snowsdeploy.models.graph import layer_input
from snowsdeploy.pruning.flow.gram import gram_matrix
from snowsdeploy.pruning.flow.windows import Window
from snowsdeploy.pruning.solve.objective import Sample, Support
from snowsdeploy.selectors.base import Choice
from snowsdeploy.solver.least_squares import Factored, masked_least_squares, solve_and_factor

Weights = dict[Node, Tensor]


Select = Callable[[str, Tensor, Callable[[], Tensor]], Choice]


@dataclass(frozen=True)
class Start:
    """Where Newton's method starts.

    Attributes:
        masks: Boolean mask of each layer's weight.
        tensors: All of the window's tensors, weights on their masks.
        factors: Of each layer's inputs, in the weights' precision: for K = 0 the curvature is exactly `X^T X` in every
            row. None where nothing is solved or preconditioned.
    """

    masks: tuple[Tensor, ...]
    tensors: Weights
    factors: tuple[Factored, ...]


def least_squares_start(
    window: Window,
    original: Weights,
    samples: Sequence[Sample],
    select: Select,
    *,
    ridge: float,
    names: Sequence[str],
    metrics: Mapping[Node, Tensor] | None = None,
    exact: bool = True,
    keep: bool = True,
) -> Start:
    """Select and solve each layer in turn, on inputs that the layers before it already changed.

    The target is the dense layer on those inputs: `c = W_dense X^T X`, so that drift does not shrink the fit; and the
    ridge pulls to the dense weights, so that neither it does.

    Args:
        window: Its first `len(names)` weights are layers'.
        original: The dense tensors.
        samples: What flows into the window.
        select: Name, weight `[K, C, ...]` and what computes `X^T X` -> mask.
        ridge: The damping of `masked_least_squares`.
        names: Of the layers' weights.
        metrics: As in `gram_matrix`.
        exact: Solve; else the mask alone, with the selector's own update where it has one.
        keep: Keep the factors of what is solved, which a preconditioner needs.

    Raises:
        NumericsError: A system cannot be factored.
    """
    current, masks, factors = dict(original), [], []
    for placeholder, name in zip(window.weights, names, strict=False):
        weight = original[placeholder]
        moments = cache(partial(_moments, window, placeholder, current, samples, metrics))
        with _naming(name):
            choice = select(name, weight, moments)
        masks.append(choice.mask)
        if not exact:
            current[placeholder] = weight * choice.mask if choice.weight is None else choice.weight
            continue
        dense = weight.flatten(1).double()
        system = moments(), dense @ moments(), choice.mask.flatten(1), ridge
        with _naming(name):
            if keep:
                solved, factor = solve_and_factor(*system, anchor=dense, dtype=weight.dtype)
                factors.append(factor)
            else:
                solved = masked_least_squares(*system, anchor=dense)
        current[placeholder] = solved.to(weight.dtype).view(weight.shape)
    return Start(tuple(masks), current, tuple(factors))


def _moments(
    window: Window,
    placeholder: Node,
    weights: Weights,
    samples: Sequence[Sample],
    metrics: Mapping[Node, Tensor] | None,
) -> Tensor:
    """`X^T X` of a layer's inputs over its calls, the window's weights being as given."""
    calls = window.calls_of(placeholder)
    pairs = ((c, window.intermediate(layer_input(c), weights, s.live_ins)) for c in calls for s in samples)
    return all_sum(gram_matrix(pairs, metrics))


def factor_inputs(
    window: Window,
    weights: Weights,
    support: Support,
    samples: Sequence[Sample],
    *,
    ridge: float,
    names: Sequence[str],
    metrics: Mapping[Node, Tensor] | None = None,
) -> list[Factored]:
    """The factors of each layer's inputs at given weights and masks; errors as `least_squares_start`."""
    grams: dict[Node, Tensor] = {}
    for sample in samples:
        inputs = window.intermediates([layer_input(c) for c in window.calls], weights, sample.live_ins)
        for placeholder in window.weights[: len(names)]:
            gram = gram_matrix(((c, inputs[layer_input(c)]) for c in window.calls_of(placeholder)), metrics)
            grams[placeholder] = grams[placeholder] + gram if placeholder in grams else gram
    factors = []
    for placeholder, mask, name in zip(window.weights, support.masks, names, strict=False):
        with _naming(name):
            weight = weights[placeholder].flatten(1).double()
            system = all_sum(grams[placeholder]), weight, mask.flatten(1), ridge
            factors.append(solve_and_factor(*system, dtype=weights[placeholder].dtype)[1])
    return factors


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    try:
        yield
    except torch.linalg.LinAlgError as error:
        raise NumericsError(
            "the inputs of a layer give no positive definite system",
            seen=f"{layer}: {first_line(error)}",
            allowed="inputs of which no combination is zero on all images",
            fix="use more --samples, or leave the layer dense with --exclude",
        ) from error
