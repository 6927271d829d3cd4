"""WoodFisher and WoodTaylor: optimal brain surgeon on the empirical Fisher matrix (Singh & Alistarh 2020).

F stands for the Hessian, in blocks of consecutive weights of a layer. Removing w_q changes a quadratic model of the
loss by at least `w_q^2 / (2 [F^-1]_qq)`, where the other weights of the block move by `-F^-1 e_q w_q / [F^-1]_qq`; the
moves of all weights that are removed add up. WoodTaylor keeps the gradient in the model.

Memory: gradients of some layers at a time, at most `_BYTES` or one layer, computed anew for each group of layers; the
factors of one block; and two numbers a weight. The gradients are computed a second time for the update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from snowsdeploy.errors import NumericsError
from snowsdeploy.selectors.base import AbstractLossSelector, Estimate, Loss, Tensors
from snowsdeploy.selectors.fisher import InverseFisher, inverse_fisher

_BYTES = 2**30
_Count = Annotated[int, Field(ge=1)]
_Damping = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Power = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class AbstractFisherSelector(AbstractLossSelector):
    """The settings of both.

    Attributes:
        gradients: N.
        batch: Images a gradient, which is their mean.
        damping: lambda.
        block: Weights in a block of F.
        flops_power: Divide a layer's scores by its multiplications a weight to this power.
        taylor: Whether the gradient is in the model.
    """

    gradients: _Count = 1000
    batch: _Count = 1
    damping: _Damping = 1e-5
    block: _Count = 2000
    flops_power: _Power = 0.0
    taylor: ClassVar[bool]

    def estimate(self, loss: Loss, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Estimate:
        """See `AbstractLossSelector`."""
        fisher = Fisher(loss, weights, kept, self.gradients, self.batch, self.damping, self.block)
        return fisher.estimate(self.flops_power, taylor=self.taylor)


@final
@dataclass(frozen=True)
class WoodFisher(AbstractFisherSelector):
    """Without the gradient: the model is taken to be at a minimum of its loss."""

    taylor: ClassVar[bool] = False
    labels: ClassVar[Literal["needed", "any", "none"]] = "any"


@final
@dataclass(frozen=True)
class WoodTaylor(AbstractFisherSelector):
    """With the gradient, which needs true labels and much more damping."""

    damping: _Damping = 1e-1
    taylor: ClassVar[bool] = True


@dataclass(frozen=True)
class Fisher:
    """The Fisher matrix of all layers at some weights; weights pruned before are out of it."""

    loss: Loss
    weights: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]
    gradients: int
    batch: int
    damping: float
    block: int

    def estimate(self, flops_power: float, *, taylor: bool) -> Estimate:
        """Scores of all weights, and the update for any masks."""
        scores: Tensors = {}
        found = 0
        for name, gradients in self._layers():
            found = len(gradients)
            parts = []
            for block, inverse in self._blocks(name, gradients):
                parts.append(self._removed(name, block, inverse, taylor=taylor).square() / (2 * inverse.diagonal()))
            # a constant of the whole model, g^T F^-1 g / 2, is left out of WoodTaylor's score
            score = torch.cat(parts) / self.loss.positions(name) ** flops_power
            scores[name] = score.view(self.weights[name].shape)
        facts = f"{found} gradients of {self.batch} images" if self.batch > 1 else f"{found} gradients of one image"
        return Estimate(scores, lambda masks: self._update(masks, taylor=taylor), facts)

    def _update(self, masks: Mapping[str, Tensor], *, taylor: bool) -> Tensors:
        moved: Tensors = {}
        for name, gradients in self._layers():
            gone = (self.kept[name] & ~masks[name]).flatten()
            parts = []
            for block, inverse in self._blocks(name, gradients):
                lost = self._removed(name, block, inverse, taylor=taylor) / inverse.diagonal()
                step = -inverse(torch.where(gone[block], lost, 0.0))
                parts.append(step - inverse(inverse.gradients.mean(0)) if taylor else step)
            weight = self.weights[name]
            moved[name] = (weight + torch.cat(parts).view(weight.shape)).to(weight.dtype) * masks[name]
        return moved

    def _removed(self, name: str, block: slice, inverse: InverseFisher, *, taylor: bool) -> Tensor:
        """What is taken away with each weight: itself, less where the gradient would move it."""
        weight = self.weights[name].flatten()[block].double()
        return weight - inverse(inverse.gradients.mean(0)) if taylor else weight

    def _blocks(self, name: str, gradients: Tensor) -> Iterator[tuple[slice, InverseFisher]]:
        size = gradients.shape[1]
        for start in range(0, size, self.block):
            block = slice(start, min(start + self.block, size))
            try:
                yield block, inverse_fisher(gradients[:, block], self.damping)
            except torch.linalg.LinAlgError as error:
                raise NumericsError(
                    "the Fisher matrix of a layer cannot be factored",
                    seen=f"{name}, with --selector-arg damping={self.damping:g}",
                    allowed="a damping that makes the matrix positive definite",
                    fix=f"--selector-arg damping={10 * self.damping:g}",
                ) from error

    def _layers(self) -> Iterator[tuple[str, Tensor]]:
        """Each layer's gradients `[N, weights]`, zero where a weight is pruned already."""
        for names in self._groups():
            parts: dict[str, list[Tensor]] = {name: [] for name in names}
            for found in self.loss.gradients(self.weights, names, self.gradients, self.batch):
                for name in names:
                    parts[name].append((found[name] * self.kept[name]).flatten(1))
            for name in names:
                yield name, torch.cat(parts.pop(name))

    def _groups(self) -> Iterator[tuple[str, ...]]:
        group: list[str] = []
        size = 0
        for name, weight in self.weights.items():
            needed = self.gradients * weight.numel() * weight.element_size()
            if group and size + needed > _BYTES:
                yield tuple(group)
                group, size = [], 0
            group.append(name)
            size += needed
        if group:
            yield tuple(group)
