"""Where a file's values leave the program's, and which layers' pruning costs most."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from snowsdeploy.values.base import Artifact, Precision
from snowsdeploy.values.numbers import Count, Flag, From0, Number, Share, Size, Unbounded

Reference = Literal["torch", "fp32 file"]


class ValueDifference(Artifact):
    """One value of an ONNX file against the same value of its reference.

    Attributes:
        value: Name of the value in the file.
        operator: ONNX operator that gives it.
        node: Name of that node.
        nodes: Nodes between the value's compared inputs and it, itself last: the places where a defect may be.
        layers: Our layers among them, or whose output they quantize.
        reference: The program in PyTorch, or the FP32 file where the program has no such value.
        relative_l2: Relative L2 error over all images; infinite when the value is NaN or Inf.
        max_abs: Largest absolute error.
        error_in: Largest relative error of the compared values that it is computed from.
        added: Relative error that these nodes add by themselves: against the reference's operation on the file's own
            inputs where that is PyTorch, else the growth of the error. None when an input is NaN or Inf.
    """

    value: str
    operator: str
    node: str
    nodes: tuple[str, ...]
    layers: tuple[str, ...] = ()
    reference: Reference
    relative_l2: Unbounded
    max_abs: Unbounded
    error_in: Unbounded
    added: Unbounded | None


class Divergence(Artifact):
    """A file's values against their references in graph order.

    Attributes:
        file: The ONNX file.
        precision: Of its products.
        provider: Where it ran, without graph rewriting.
        images: How many images.
        images_from: Where they came from.
        changed: Whether the file is another than the export stage wrote.
        tolerance: Largest relative error that is no divergence.
        kind: `agrees`; `diverges`: one node adds more than half of the tolerance; `accumulates`: many add a little;
            `rewriting`: the file agrees, and what ONNX Runtime makes of it does not.
        first: The first value beyond the tolerance whose inputs are all within it.
        rows: Every compared value.
        compared: Share of the floating-point values that have a reference.
        rewriting: Relative L2 difference of the outputs with ONNX Runtime's usual graph rewriting and without.
        conclusion: What it means and what to do, a sentence.
    """

    file: Path
    precision: Precision
    provider: str
    images: Size
    images_from: str
    changed: Flag
    tolerance: From0
    kind: Literal["agrees", "diverges", "accumulates", "rewriting"]
    first: ValueDifference | None
    rows: tuple[ValueDifference, ...]
    compared: Share
    rewriting: Unbounded
    conclusion: str


class Distance(Artifact):
    """How far a model's outputs are from the dense model's.

    Attributes:
        value: The task's divergence, such as the mean KL(dense || model) of logits in nats, or the relative L2 error.
        measure: Which of them.
        same: The share that is equal in both, 0 to 1; None for a task without one.
        same_label: What is equal.
    """

    value: From0
    measure: str
    same: Share | None = None
    same_label: str = ""


class LayerCost(Artifact):
    """What the pruning of some layers costs: the distance falls by so much when they are dense and all others pruned.

    Attributes:
        layers: Restored together.
        whole: Whether they are all layers of a solve; a part of one may cost less than nothing, since the others were
            solved to compensate for it.
        restored: Distance of the model with these layers dense.
        cost: Distance of the pruned model minus that.
        weights: Weights of these layers.
        share: Of all pruned weights.
        cost_per_share: Cost over share.
        loss_masked: Loss of the solve's window with the mask applied, from the pruning report.
        loss_final: The same after the solve.
    """

    layers: tuple[str, ...]
    whole: Flag = True
    restored: Distance
    cost: Number
    weights: Size
    share: Share
    cost_per_share: Number
    loss_masked: Number
    loss_final: Number


class Restoration(Artifact):
    """The search for the fewest units that must stay dense to pass the accuracy rules.

    Attributes:
        outcome: `passes`: nothing needs to be dense; `found`; `impossible`: even with all of them dense the rules fail;
            `coverage`: what would pass leaves too few weights in the pattern.
        units: The layers of each unit to keep dense, in the order in which they were chosen.
        tried: Sets of units that were judged.
        coverage: Share of convolution and matrix-product weights that stay in the pattern with them dense.
        images: What the rules were judged on.
        measured: What the accuracy rules measured on the result.
    """

    outcome: Literal["passes", "found", "impossible", "coverage"]
    units: tuple[tuple[str, ...], ...]
    tried: Count
    coverage: Share
    images: str
    measured: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers to keep dense."""
        return tuple(name for unit in self.units for name in unit)


class AccuracyCost(Artifact):
    """Which layers' pruning costs most, on calibration images.

    Attributes:
        images: How many.
        pruned: Distance of the pruned model.
        units: Every solve, the dearest first.
        single: Single layers of small joint solves.
        suggestion: The fewest units to keep dense for a policy; None where no rule judges.
    """

    images: Size
    pruned: Distance
    units: tuple[LayerCost, ...]
    single: tuple[LayerCost, ...] = ()
    suggestion: Restoration | None
