"""What the pruning stage decided and did."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from snowsdeploy.values.base import Artifact
from snowsdeploy.values.command import StageCommand
from snowsdeploy.values.memory import MemoryPlan
from snowsdeploy.values.numbers import Count, Flag, From0, Number, Seconds, Share, Size, Whole
from snowsdeploy.values.pattern import PatternText
from snowsdeploy.values.permutation import Permutation
from snowsdeploy.values.source import DataInfo


class LayerDecision(Artifact):
    """One layer of the graph that multiplies by a weight: is it pruned, and if not, why not.

    Attributes:
        name: Module path (the weight's name without `.weight`), or the graph node where the weight has no name.
        weight: Fully qualified name of the weight in the state dict; None when the graph computes it.
        kind: conv, linear, or another product with a weight, which always stays dense.
        shape: Shape of the weight as PyTorch stores it.
        calls: How often the graph uses the weight.
        prunable: Whether the layer is pruned.
        reason: Why not, empty when it is.
    """

    name: str
    weight: str | None
    kind: Literal["conv", "linear", "other"]
    shape: tuple[Count, ...]
    calls: Size = 1
    prunable: Flag
    reason: str = ""

    @model_validator(mode="after")
    def _reason_why_not(self) -> Self:
        if self.prunable == bool(self.reason):
            raise ValueError("a layer is pruned exactly where there is no reason why not")
        if self.prunable and (self.weight is None or self.kind == "other"):
            raise ValueError("a pruned layer is a conv or linear with a weight that has a name")
        return self


class LayerReport(Artifact):
    """What happened to one pruned layer. Losses are the window objective on the calibration images.

    Attributes:
        layers: Names solved together (one, unless layers are solved jointly).
        operations: Counted operations in the window (0: the layer's own output).
        targets: Share of the true dense activations in the window's targets, or what `auto` chose and why.
        kept: Weights that stay, of `total`.
        vectors: Biases and normalisation parameters that varied too.
        loss_masked: Objective with the mask applied and nothing solved.
        loss_initial: Objective after the warm start.
        loss_final: Objective of the weights that were kept.
        held_back_initial: Objective of the warm start on images that the solver did not see.
        held_back_final: The same of the weights that were kept.
        newton_steps: Accepted Newton steps.
        products: Curvature products spent.
        product_flops: Floating-point operations of one of them: matrix products and convolutions.
        product_precision: Their precision; with its error when reduced, or why it was not reduced.
        derivatives: What operators of the window lack, and how it is solved instead; empty where nothing is lacking.
        newton_seconds: Wall time of the Newton steps alone.
        seconds: Wall time of this solve.
        outcome: The solver's result as a sentence.
    """

    layers: tuple[str, ...]
    operations: Count
    targets: str
    kept: Count
    total: Size
    vectors: Count = 0
    loss_masked: Number
    loss_initial: Number
    loss_final: Number
    held_back_initial: Number | None = None
    held_back_final: Number | None = None
    newton_steps: Count
    products: Count
    product_flops: From0 = 0.0
    product_precision: str = ""
    derivatives: str = ""
    newton_seconds: Seconds = 0.0
    seconds: Seconds
    outcome: str

    @model_validator(mode="after")
    def _kept_of_total(self) -> Self:
        if self.kept > self.total:
            raise ValueError(f"kept is {self.kept}, more than the total of {self.total}")
        return self


_THRESHOLDS = {
    "group": "the best of each group",
    "row": "a threshold an output row",
    "layer": "a threshold a layer",
    "global": "one threshold for all layers",
}
_LABELS = {"data": "labels of the images", "sampled": "labels sampled from the model"}


class SelectionReport(Artifact):
    """How the masks were chosen.

    Attributes:
        settings: The selector's own settings.
        threshold: What scores were compared across: a group of an N:M pattern, an output row, a layer or all layers.
        steps: For masks chosen by the loss: the pattern after each step, and what its scores rest on.
        labels: Whether labels of the loss were the data's, or sampled from the model's own softmax; none if not read.
        seconds: Wall time of what was chosen before the first solve.
    """

    settings: dict[str, str | int | float | bool] = Field(default_factory=dict)
    threshold: Literal["group", "row", "layer", "global"]
    steps: tuple[str, ...] = ()
    labels: Literal["none", "data", "sampled"] = "none"
    seconds: Seconds = 0.0

    def __str__(self) -> str:
        parts = [_THRESHOLDS[self.threshold]]
        if self.settings:
            parts.append(", ".join(f"{name} {value}" for name, value in self.settings.items()))
        if self.labels != "none":
            parts.append(_LABELS[self.labels])
        if self.steps:
            parts.append(f"{' -> '.join(self.steps)} in {self.seconds:.0f} s")
        return "; ".join(parts)


class TensorDigests(Artifact):
    """SHA-256 of the tensors that a pruning leaves.

    Attributes:
        dense: Of the dense program.
        weights: What pruning changed.
        masks: Of the pruned weights.
    """

    dense: str
    weights: str
    masks: str


class PruneReport(Artifact):
    """The pruning stage: what was decided for each layer, and what each solve did.

    Attributes:
        sparsity: Share of zeros that each layer must have, by name, where a global threshold made them differ.
        device: Where it was solved, and by how many processes.
        tensors: What tells a run's tensors from others; set where they are written.
        commands: By which it was made.
    """

    pattern: PatternText
    selector: str
    selection: SelectionReport | None = None
    sparsity: dict[str, Share] = Field(default_factory=dict)
    solver: dict[str, str | int | float | bool]
    decisions: Annotated[tuple[LayerDecision, ...], Field(min_length=1)]
    solves: tuple[LayerReport, ...]
    final: LayerReport | None = None
    notes: tuple[str, ...] = ()
    permutation: Permutation | None = None
    memory: MemoryPlan | None = None
    device: str = "cpu"
    calibration: DataInfo
    calibration_items: Annotated[tuple[Count, ...], Field(min_length=1)]
    seconds: Seconds
    seed: Whole
    tensors: TensorDigests | None = None
    commands: tuple[StageCommand, ...] = ()

    @model_validator(mode="after")
    def _items_are_counted(self) -> Self:
        if len(self.calibration_items) != self.calibration.items:
            listed = len(self.calibration_items)
            raise ValueError(f"calibration.items is {self.calibration.items}, and calibration_items lists {listed}")
        return self

    @property
    def pruned(self) -> tuple[LayerDecision, ...]:
        """The layers that were pruned, in graph order."""
        return tuple(d for d in self.decisions if d.prunable)
