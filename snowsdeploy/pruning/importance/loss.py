"""The model's loss on calibration images: its gradient, gradients of single images, and the exact curvature diagonal.

One image's gradient of a layer's weight is `delta^T X`, with X the unfolded inputs of its positions and delta the
gradients at the layer's outputs there (Goodfellow 2015, extended to positions). Both are read off the graph, so no
operator needs a rule of its own, and the squares of single images' gradients cost one product of small matrices each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.functional import cross_entropy, one_hot

from snowsdeploy.batch import Batch
from snowsdeploy.distributed import all_sum, in_turn, number, share_of_most, sum_number, world
from snowsdeploy.errors import DataError, GraphError
from snowsdeploy.models.graph import as_tensor, base_name, layer_input
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.pruning.flow.derivatives import require_gradients
from snowsdeploy.pruning.flow.gram import input_rows
from snowsdeploy.pruning.flow.probe import probe_derivatives
from snowsdeploy.pruning.flow.whole import evaluate_whole
from snowsdeploy.selectors.base import Tensors

LOSS_IMAGES = 32  # a whole model's graph, and single images' gradients of a layer, are held for so many at once


@dataclass(frozen=True)
class _Part:
    """Images that are held at once.

    Attributes:
        batch: The number of their batch in this process.
        start: The first one's place in it.
        images: `[images, C, H, W]`.
    """

    batch: int
    start: int
    images: Batch


@final
class ProgramLoss:
    """Cross-entropy of the first output, as `selectors.base.Loss` wants it; in evaluation mode, images independent.

    Memory: activations and unfolded inputs of `at_once` images, and as many gradients of the largest layer.
    """

    def __init__(
        self,
        graph: ProgramGraph,
        state: Mapping[Node, Tensor],
        images: Sequence[Batch],
        labels: Tensor | None,
        *,
        names: Sequence[str],
        seed: int = 0,
        at_once: int = LOSS_IMAGES,
    ) -> None:
        """Bind the data.

        Args:
            graph: The program's graph.
            state: Placeholder -> tensor of the dense model.
            images: Batches `[batch, C, H, W]`.
            labels: Classes of all images in order; None samples them from the model's own softmax.
            names: Weights to be pruned.
            seed: Of sampled labels.
            at_once: Images that are looked at together.

        Raises:
            DataError: The labels do not fit the images or the classes.
            GraphError: The output is not one vector an image, a layer does not have the images as its first axis, or
                an operator behind a layer has no derivative.
        """
        self._graph, self._names, self._seed, self._at_once = graph, tuple(names), seed, at_once
        self._state = dict(state)
        self._batches = images
        self._placeholders = {name: graph.placeholder(name) for name in names}
        calls = [call for name in names for call in graph.layers[name].calls]
        require_gradients(graph, probe_derivatives(graph, images[0], state), calls, graph.outputs[0])
        with torch.no_grad():
            values = self._evaluate({}, images[0][:1], calls)
        logits = as_tensor(values[graph.outputs[0]])
        if logits.dim() != 2:
            raise GraphError(
                "the model's first output is not a vector of classes",
                seen=f"shape {list(logits.shape)}",
                allowed="[batch, classes]",
                fix="put the scores first with --outputs, or choose a --selector that reads layers' inputs, such as "
                "sparsegpt",
            )
        sizes = [len(batch) for batch in images]
        _require_labels(labels, sum(sizes), logits.shape[1])
        self.total = round(sum_number(sum(sizes)))
        self._labels: tuple[Tensor, ...] | None = None if labels is None else labels.split(sizes)
        self._uses = {n: sum(self._count(c, values) for c in graph.layers[n].calls) for n in names}

    def positions(self, name: str) -> int:
        """See `selectors.base.Loss`."""
        return self._uses[name]

    def gradient(self, weights: Mapping[str, Tensor]) -> Tensors:
        """See `selectors.base.Loss`."""
        totals = {n: torch.zeros_like(weights[n], dtype=torch.float64) for n in self._names}
        for part in self._parts():
            for name, value in self._sum_gradient(weights, part).items():
                totals[name] += value
        return {name: all_sum(total) / self.total for name, total in totals.items()}

    def curvature(self, weights: Mapping[str, Tensor], passes: int = 0) -> Tensors:
        """See `selectors.base.Loss`.

        The Hessian of cross-entropy is `diag(p) - p p^T = U U^T` with columns `u_c = sqrt(p_c) (e_c - p)`, so that
        the diagonal is the sum over classes of squares of `J^T u_c`: one backward pass a class. With fewer passes
        than classes, half of them take each image's likeliest classes and the others, one at least, draw from the rest.
        """
        totals = {n: torch.zeros_like(weights[n], dtype=torch.float64) for n in self._names}
        for part in self._parts():
            for name, squares in self._curvature(weights, passes, part):
                totals[name] += squares.view_as(totals[name])
        return {name: all_sum(total) / self.total for name, total in totals.items()}

    def _curvature(self, weights: Mapping[str, Tensor], passes: int, part: _Part) -> Iterator[tuple[str, Tensor]]:
        """Each weight's squares over a part's images, a pass at a time; the graph is gone at the end."""
        values, logits = self._outputs(weights, part.images, self._names)
        rows = self._rows(values, len(part.images), self._names)
        columns = _curvature_columns(logits.detach().softmax(1), passes, self._generator(part))
        for i, column in enumerate(columns):
            for name, single in self._single(values, rows, logits, column, keep=i + 1 < len(columns)):
                yield name, single.square().sum(0)

    def gradients(
        self, weights: Mapping[str, Tensor], names: tuple[str, ...], count: int, batch: int
    ) -> Iterator[Tensors]:
        """See `selectors.base.Loss`; of several processes each computes its own images' gradients, and has all."""
        if batch == 1:
            yield from self._single_gradients(weights, names, count)
            return
        found, filled = 0, 0
        mean: Tensors = {}
        for singles in self._single_gradients(weights, names, count * batch):
            rows = len(next(iter(singles.values())))
            start = 0
            while start < rows:
                stop = min(rows, start + batch - filled)
                for name, single in singles.items():
                    value = single[start:stop].sum(0)
                    mean[name] = mean[name] + value if name in mean else value
                filled, start = filled + stop - start, stop
                if filled == batch:
                    yield {name: (value / batch).unsqueeze(0) for name, value in mean.items()}
                    found, filled, mean = found + 1, 0, {}

    def _single_gradients(self, weights: Mapping[str, Tensor], names: tuple[str, ...], count: int) -> Iterator[Tensors]:
        """Of the first so many images of all processes, in order."""
        left, rounds = count, share_of_most(len(self._batches))
        device = next(iter(weights.values())).device
        for batch in range(rounds):
            parts = self._parts(range(batch, min(batch + 1, len(self._batches))))
            own = (dict(self._singles_of(weights, names, part)) for part in parts)
            for piece in own if world() == 1 else in_turn(list(own), device):
                taken = {name: rows[:left] for name, rows in piece.items()}
                yield taken
                left -= len(next(iter(taken.values())))
                if left <= 0:
                    return

    def _singles_of(
        self, weights: Mapping[str, Tensor], names: tuple[str, ...], part: _Part
    ) -> Iterator[tuple[str, Tensor]]:
        values, logits = self._outputs(weights, part.images, names)
        loss = cross_entropy(logits, self._targets(part, logits), reduction="sum")
        for name, gradient in self._single(values, self._rows(values, len(part.images), names), loss, None):
            yield name, gradient.view(-1, *weights[name].shape)

    def _parts(self, batches: range | None = None) -> Iterator[_Part]:
        """Slices of this process' batches."""
        for batch in range(len(self._batches)) if batches is None else batches:
            start = 0
            for images in self._batches[batch].split(self._at_once):
                yield _Part(batch, start, images)
                start += len(images)

    def _sum_gradient(self, weights: Mapping[str, Tensor], part: _Part) -> Tensors:
        """Sum of the gradients over a part's images."""
        wanted = {n: weights[n].detach().requires_grad_() for n in self._names}
        with torch.enable_grad():
            values = self._evaluate({**weights, **wanted}, part.images)
            logits = as_tensor(values[self._graph.outputs[0]])
            loss = cross_entropy(logits, self._targets(part, logits), reduction="sum")
        found = torch.autograd.grad(loss, list(wanted.values()), materialize_grads=True)
        return dict(zip(wanted, found, strict=True))

    def _outputs(
        self, weights: Mapping[str, Tensor], images: Batch, names: Sequence[str]
    ) -> tuple[dict[Node, Any], Tensor]:
        """Inputs and outputs of some weights' layers, with derivatives to the latter, and the logits."""
        calls = [call for name in names for call in self._graph.layers[name].calls]
        with torch.enable_grad():
            values = self._evaluate(weights, images, [layer_input(call) for call in calls], calls)
        return values, as_tensor(values[self._graph.outputs[0]])

    def _evaluate(
        self,
        weights: Mapping[str, Tensor],
        images: Batch,
        wanted: Sequence[Node] = (),
        ends: Sequence[Node] = (),
    ) -> dict[Node, Any]:
        graph = self._graph
        replaced = {self._placeholders[n]: w for n, w in weights.items()}
        given = {**self._state, **replaced, **graph.given(images)}
        # the output too is an end: where no layer reaches it, derivatives are zero
        return evaluate_whole(graph, given, wanted, ends=[*ends, graph.outputs[0]])

    def _targets(self, part: _Part, logits: Tensor) -> Tensor:
        if self._labels is not None:
            return self._labels[part.batch][part.start : part.start + len(part.images)].to(logits.device)
        probabilities = logits.detach().softmax(1).double().cpu()
        sampled: Tensor = torch.multinomial(probabilities, 1, generator=self._generator(part))
        return sampled.squeeze(1).to(logits.device)

    def _generator(self, part: _Part) -> torch.Generator:
        """Of these images, so that what is drawn does not depend on what was asked before, nor by which process."""
        return torch.Generator().manual_seed((self._seed * 1_000_003 + number(part.batch)) * 10_007 + part.start)

    def _rows(self, values: Mapping[Node, Any], images: int, names: Sequence[str]) -> dict[Node, Tensor]:
        """Call -> its unfolded inputs, `[images, positions, d]`."""
        rows = {}
        for call in (c for n in names for c in self._graph.layers[n].calls):
            unfolded = input_rows(call, values[layer_input(call)].detach())
            rows[call] = unfolded.view(images, -1, unfolded.shape[1])
        return rows

    def _single(
        self,
        values: Mapping[Node, Any],
        rows: Mapping[Node, Tensor],
        outputs: Tensor,
        along: Tensor | None,
        *,
        keep: bool = False,
    ) -> Iterator[tuple[str, Tensor]]:
        """Single images' gradients `[images, K, d]` of each weight in turn, summed over its calls."""
        calls = list(rows)
        ends = [values[c] for c in calls]
        deltas = torch.autograd.grad(outputs, ends, along, retain_graph=keep, materialize_grads=True)
        by_call = dict(zip(calls, deltas, strict=True))
        for name in self._names:
            uses = [c for c in self._graph.layers[name].calls if c in rows]
            if uses:
                parts = [torch.bmm(_channels_first(c, by_call[c], len(rows[c])), rows[c]) for c in uses]
                yield name, parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def _count(self, call: Node, values: Mapping[Node, Any]) -> int:
        """Positions of one image at a layer's output; the images must be the first axis."""
        shape = call.meta["val"].shape
        if isinstance(shape[0], int):
            raise GraphError(
                "a layer does not have the images as its first axis, so single images' gradients cannot be told apart",
                seen=f"{call.name}, output {tuple(shape)}",
                allowed="layers whose first axis is the batch",
                fix="choose a --selector that reads layers' inputs, such as sparsegpt",
            )
        output = values[call]
        return int(output.numel() // output.shape[-1 if base_name(call) == "linear" else 1])


def _curvature_columns(p: Tensor, passes: int, generator: torch.Generator) -> list[Tensor]:
    """Columns u, `[images, classes]` each, whose squares `(J^T u)^2` add up to the diagonal, on average if drawn."""
    classes = p.shape[1]
    likeliest = p.argsort(dim=1, descending=True, stable=True)
    exact = classes if not 0 < passes < classes else min((passes + 1) // 2, passes - 1)
    columns = [_column(p, likeliest[:, i], p.gather(1, likeliest[:, i : i + 1])) for i in range(exact)]
    if exact == classes:
        return columns
    rest = p.scatter(1, likeliest[:, :exact], 0.0)
    share = rest.sum(1, keepdim=True)
    weights = rest.double().cpu().clamp_min(1e-300)  # an image may leave nothing to draw from: its share is 0 then
    drawn = torch.multinomial(weights, passes - exact, replacement=True, generator=generator)
    return columns + [_column(p, c, share / (passes - exact)) for c in drawn.to(p.device).unbind(1)]


def _column(p: Tensor, classes: Tensor, scale: Tensor) -> Tensor:
    """`sqrt(scale) (e_c - p)` with a class for each image."""
    return (one_hot(classes, p.shape[1]).to(p) - p) * scale.sqrt()


def _channels_first(call: Node, delta: Tensor, images: int) -> Tensor:
    """Gradients at a layer's output, `[images, K, positions]`."""
    if base_name(call) == "linear":
        return delta.reshape(images, -1, delta.shape[-1]).transpose(1, 2)
    return delta.reshape(images, delta.shape[1], -1)


def _require_labels(labels: Tensor | None, images: int, classes: int) -> None:
    if labels is not None and (len(labels) != images or int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise DataError(
            "the labels do not fit the model's classes or the images",
            seen=f"{len(labels)} labels from {int(labels.min())} to {int(labels.max())}",
            allowed=f"{images} labels from 0 to {classes - 1}",
            fix="check --data; in an ImageFolder the label is the sorted index of the class folder",
        )
