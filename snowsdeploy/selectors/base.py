"""What a selector is: statistics of calibration data -> a score for each weight, or a mask -> which weights stay.

    AbstractSelector
    ├── AbstractScore          a layer's weight and the second moments of its inputs -> a score for each weight
    ├── AbstractSweep          the same -> the mask itself, chosen weight by weight or group by group
    └── AbstractLossSelector   gradients and curvature of the model's loss -> scores for all layers at once

The first two read the inputs of a layer in the model pruned so far; the last is done before anything is solved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from snowsdeploy.patterns.pattern import Pattern

Threshold = Literal["row", "layer", "global"]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Choice:
    """Which weights of a layer stay.

    Attributes:
        mask: Boolean, the weight's shape.
        weight: The method's own update of the kept weights, zero elsewhere; None where the method has none.
    """

    mask: Tensor
    weight: Tensor | None = None


class AbstractSelector(ABC):  # noqa: B024 - what selectors share is their threshold
    """Base of all selectors. Fields of a selector are its settings, with the paper's values as defaults.

    Attributes:
        threshold: What the method's paper compares unstructured scores across.
        widest: Most columns `d` of a layer that it takes; None for any.
    """

    threshold: ClassVar[Threshold] = "layer"
    widest: ClassVar[int | None] = None


class AbstractScore(AbstractSelector):
    """A layer selector that scores each weight on its own.

    Attributes:
        reads_inputs: Whether it looks at `gram`; where it does not, none need be computed for it.
    """

    reads_inputs: ClassVar[bool] = True

    @abstractmethod
    def score(self, weight: Tensor, gram: Tensor) -> Tensor:
        """How much each weight matters; the highest stay.

        Args:
            weight: `[rows, d]`.
            gram: `X^T X` of the layer's inputs, `[d, d]`, in the same order of columns.

        Returns:
            `[rows, d]`.
        """


class AbstractSweep(AbstractSelector):
    """A layer selector whose later choices depend on its earlier ones."""

    @abstractmethod
    def choose(self, weight: Tensor, gram: Tensor, pattern: Pattern) -> Choice:
        """Choose a layer's mask.

        Args:
            weight: `[rows, d]`, groups of `m` consecutive columns.
            gram: `X^T X` of the layer's inputs, `[d, d]`, in the same order of columns.
            pattern: N:M, or unstructured with its share in this layer.
        """


class Loss(Protocol):
    """The model's cross-entropy on calibration images, as a function of the weights to be pruned."""

    def gradient(self, weights: Mapping[str, Tensor]) -> Tensors:
        """Mean gradient over all images."""

    def curvature(self, weights: Mapping[str, Tensor], passes: int = 0) -> Tensors:
        """Diagonal of the generalised Gauss-Newton matrix, mean over all images.

        Args:
            weights: All weights.
            passes: Backward passes a batch; 0, or at least as many as there are classes: exact over classes. With
                fewer it is right on average only.
        """

    def gradients(
        self, weights: Mapping[str, Tensor], names: tuple[str, ...], count: int, batch: int
    ) -> Iterator[Tensors]:
        """Gradients of single images or mini-batches, stacked `[some, ...]` a tensor; `count` in all, or what there is.

        Args:
            weights: All weights.
            names: Those whose gradients are wanted.
            count: How many gradients.
            batch: Images a gradient, which is their mean.
        """

    def positions(self, name: str) -> int:
        """How often one image uses each weight of a layer: its multiplications a weight."""


@dataclass(frozen=True)
class Estimate:
    """What a loss selector makes of the loss at some weights.

    Attributes:
        scores: The highest stay; a tensor of the weight's shape for each weight.
        update: Masks -> the weights on them, where the method has an update.
        facts: What the scores rest on, as a sentence for the report.
    """

    scores: Tensors
    update: Callable[[Mapping[str, Tensor]], Tensors] | None = None
    facts: str = ""


class AbstractLossSelector(AbstractSelector):
    """A selector that scores the weights of all layers by what their loss costs the model.

    Attributes:
        labels: `needed`: the method makes no sense without true labels; `any`: those of the data, or else sampled
            from the model's own softmax; `none`: it reads no labels.
        steps: In how many the method's paper prunes, estimating anew at each on the weights that are left.
    """

    labels: ClassVar[Literal["needed", "any", "none"]] = "needed"
    threshold: ClassVar[Threshold] = "global"
    steps: ClassVar[int] = 1

    @abstractmethod
    def estimate(self, loss: Loss, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Estimate:
        """Score all weights.

        Args:
            loss: On the calibration images.
            weights: The weights now; those pruned in earlier steps are zero.
            kept: Which of them are not pruned yet, boolean.
        """
