"""Where Newton's method starts: exact masked least squares of each layer, whose factors precondition what follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.errors import NumericsError
from snowsdeploy.pruning.gram import gram_matrix
from snowsdeploy.pruning.objective import Sample, Support
from snowsdeploy.pruning.windows import Window
from snowsdeploy.selectors.base import Choice
from snowsdeploy.solver.least_squares import MaskedCholesky, masked_cholesky

Weights = dict[Node, Tensor]


Select = Callable[[str, Tensor, Tensor], Choice]


@dataclass(frozen=True)
class Start:
    """Where Newton's method starts.

    Attributes:
        masks: Boolean mask of each layer's weight.
        tensors: All of the window's tensors, weights on their masks.
        factors: Masked Cholesky factors of each layer's inputs, in the weights' precision: for K = 0 the curvature is
            exactly `X^T X` in every row; none where nothing is solved.
    """

    masks: tuple[Tensor, ...]
    tensors: Weights
    factors: tuple[MaskedCholesky, ...]


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
) -> Start:
    """Select and solve each layer in turn, on inputs that the layers before it already changed.

    The target is the dense layer on those inputs: `c = W_dense X^T X`, so that drift does not shrink the fit.

    Args:
        window: Its first `len(names)` weights are layers'.
        original: The dense tensors.
        samples: What flows into the window.
        select: Name, weight `[K, C, ...]` and `X^T X` -> mask.
        ridge: As in `masked_cholesky`.
        names: Of the layers' weights.
        metrics: As in `gram_matrix`.
        exact: Solve; else the mask alone, with the selector's own update where it has one.

    Raises:
        NumericsError: A system cannot be factored.
    """
    current, masks, factors = dict(original), [], []
    for placeholder, name in zip(window.weights, names, strict=False):
        calls = window.calls_of(placeholder)
        pairs = ((c, window.intermediate(_source(c), current, s.live_ins)) for c in calls for s in samples)
        gram = gram_matrix(pairs, metrics)
        weight = original[placeholder]
        choice = _choose(select, name, weight, gram)
        masks.append(choice.mask)
        if not exact:
            current[placeholder] = weight * choice.mask if choice.weight is None else choice.weight
            continue
        factor = _factor(gram, choice.mask, ridge, name)
        factors.append(factor.to(weight.dtype))
        current[placeholder] = factor(weight.flatten(1).double() @ gram).to(weight.dtype).view(weight.shape)
    return Start(tuple(masks), current, tuple(factors))


def factor_inputs(
    window: Window,
    weights: Weights,
    support: Support,
    samples: Sequence[Sample],
    *,
    ridge: float,
    names: Sequence[str],
    metrics: Mapping[Node, Tensor] | None = None,
) -> list[MaskedCholesky]:
    """The factors of each layer's inputs at given weights and masks; errors as `least_squares_start`."""
    grams: dict[Node, Tensor] = {}
    for sample in samples:
        inputs = window.intermediates([_source(c) for c in window.calls], weights, sample.live_ins)
        for placeholder in window.weights[: len(names)]:
            gram = gram_matrix(((c, inputs[_source(c)]) for c in window.calls_of(placeholder)), metrics)
            grams[placeholder] = grams[placeholder] + gram if placeholder in grams else gram
    rows = zip(window.weights, support.masks, names, strict=False)
    return [_factor(grams[p], mask, ridge, name).to(weights[p].dtype) for p, mask, name in rows]


def _choose(select: Select, name: str, weight: Tensor, gram: Tensor) -> Choice:
    try:
        return select(name, weight, gram)
    except torch.linalg.LinAlgError as error:
        raise NumericsError(
            "the selector cannot factor the inputs' moments", seen=name, fix="use more --samples"
        ) from error


def _factor(gram: Tensor, mask: Tensor, ridge: float, name: str) -> MaskedCholesky:
    try:
        return masked_cholesky(gram, mask.flatten(1), ridge)
    except torch.linalg.LinAlgError as error:
        raise NumericsError(
            "the inputs of a layer give no positive definite system", seen=name, fix="use more --samples"
        ) from error


def _source(call: Node) -> Node:
    source = call.args[0]
    assert isinstance(source, Node)
    return source
