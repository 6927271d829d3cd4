"""What is proven on a file: its layout, its numbers, and whether a compiler takes it."""

from __future__ import annotations

from math import prod
from typing import Annotated, Self

from pydantic import Field, computed_field, model_validator

from snowsdeploy.values.base import Artifact, RunPath, Sha256, Tristate
from snowsdeploy.values.numbers import Count, Flag, From0, Seconds, Share, Size
from snowsdeploy.values.pattern import PatternText, allowed_in_group


class LayerSparsity(Artifact):
    """The layout of one weight in a file, and what an engine made of it.

    Attributes:
        name: Layer (module path) when known, else the initializer or node.
        tensor: Initializer name or state-dict key.
        op: ONNX operator, or conv / linear for checkpoints.
        shape: Stored shape.
        axis: Axis along which groups lie in the stored tensor.
        zeros: Fraction of zero values, 0 to 1.
        groups: Number of groups of M checked.
        violations: Groups with more than N non-zeros.
        found: Engine called the layer eligible for sparse tactics.
        chosen: Engine chose a sparse tactic.
        note: Anything a reader should know, e.g. why a layer cannot hold the pattern.
    """

    name: str
    tensor: str
    op: str
    shape: tuple[Count, ...]
    axis: Count
    zeros: Share
    groups: Count
    violations: Count
    found: Tristate = "unknown"
    chosen: Tristate = "unknown"
    note: str = ""

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def layout_valid(self) -> bool:
        """Whether every group holds the pattern; False where none was checked, as of an axis that M does not divide."""
        return self.groups > 0 and self.violations == 0

    @property
    def weights(self) -> int:
        """How many there are."""
        return prod(self.shape)

    @property
    def nonzeros(self) -> int:
        """How many of them are not zero."""
        return round((1 - self.zeros) * self.weights)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.violations > self.groups:
            raise ValueError(f"violations is {self.violations}, more than the {self.groups} groups")
        if self.axis >= max(len(self.shape), 1):
            raise ValueError(f"axis is {self.axis}, and the shape has {len(self.shape)} axes")
        return self


class SparsityEvidence(Artifact):
    """The pattern, proven weight by weight on a file.

    Attributes:
        pattern: For example 2:4.
        file: The file that was read.
        sha256: Of its content; None of tensors that are in no ONNX file.
        layers: Every weight of a convolution or matrix product, in graph order.
        expected: Names of the layers that had to hold the pattern (empty when only inspecting).
        shares: Share of zeros of each layer that has its own in an unstructured pattern, by name.
    """

    pattern: PatternText
    file: RunPath
    sha256: Sha256 | None = None
    layers: tuple[LayerSparsity, ...]
    expected: tuple[str, ...] = ()
    shares: dict[str, Share] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _counts_are_possible(self) -> Self:
        for row in self.layers:
            _require_possible(row, self.pattern, self.shares.get(row.name))
        return self

    @computed_field  # type: ignore[prop-decorator]  # as above
    @property
    def weights_covered(self) -> int:
        """Weights in layers that hold the pattern: a stored tensor counts once, and where every use of it does."""
        broken = {row.tensor for row in self.layers if not row.layout_valid}
        return sum(row.weights for row in self._stored if row.tensor not in broken)

    @computed_field  # type: ignore[prop-decorator]  # as above
    @property
    def weights_total(self) -> int:
        """Weights in all convolution and matrix-product layers, each stored tensor once."""
        return sum(row.weights for row in self._stored)

    @property
    def _stored(self) -> tuple[LayerSparsity, ...]:
        return tuple({row.tensor: row for row in self.layers}.values())

    def holds(self, name: str) -> bool:
        """Whether a layer is there and holds the pattern at each of its uses."""
        rows = [row for row in self.layers if row.name == name]
        return bool(rows) and all(row.layout_valid for row in rows)

    @property
    def coverage(self) -> float:
        """Share of all convolution and matrix-product weights whose layer holds the pattern, 0 to 1."""
        return self.weights_covered / self.weights_total if self.weights_total else 0.0


def _require_possible(row: LayerSparsity, pattern: str, share: float | None) -> None:
    """Refuse numbers of groups, violations and zeros that no weight has together."""
    if not row.groups:
        return
    group, kept = allowed_in_group(pattern, row.weights, share)
    if row.groups * group != row.weights:
        raise ValueError(f"{row.name}: {row.groups} groups of {group} are not {row.weights} weights")
    least = row.violations * (kept + 1)
    most = row.violations * group + (row.groups - row.violations) * kept
    if not least <= row.nonzeros <= most:
        raise ValueError(
            f"{row.name}: {row.violations} violations of {pattern} in {row.groups} groups do not go with "
            f"{row.zeros:.2%} zeros"
        )


ROUNDING = 10.0  # two libraries that round otherwise may be so many times further apart than one is from the truth


class ParityRow(Artifact):
    """torch against ONNX for one output at one batch size.

    Attributes:
        output: Its name.
        batch: Items at once.
        max_abs: Largest difference.
        relative_l2: 2-norm of the difference over that of torch's values; of whole numbers and truth values, where
            distances mean nothing, the share that differs. What half precision rounds away does not count in an output
            of half precision.
        dtype: Of the output.
        rounding: Of an output of a file in FP32 that differs much: by how much rounding alone takes PyTorch's values
            from those in FP64, as `relative_l2`. Outputs that are nearly zero, or chaotic, are known by it.
    """

    output: str
    batch: Size
    max_abs: From0
    relative_l2: From0
    dtype: str = "float32"
    rounding: From0 | None = None

    def within(self, limit: float) -> bool:
        """Whether the difference is below a limit, or no more than rounding explains."""
        return self.relative_l2 <= limit or self.relative_l2 <= ROUNDING * (self.rounding or 0.0)


class Parity(Artifact):
    """The pruned torch program against the sparse ONNX file on the same inputs."""

    provider: str
    rows: Annotated[tuple[ParityRow, ...], Field(min_length=1)]

    def __str__(self) -> str:
        """The largest error, and of which output where there are several."""
        worst = max(self.rows, key=lambda row: row.relative_l2)
        what = "relative error" if worst.dtype.startswith("float") else "share of values that differ"
        where = f", at {worst.output}" if len({row.output for row in self.rows}) > 1 else ""
        return f"{what} at most {worst.relative_l2:.1e}{where}"

    @property
    def worst_relative_l2(self) -> float:
        """The largest relative L2 error of any row."""
        return max(r.relative_l2 for r in self.rows)


class Compilation(Artifact):
    """What an ahead-of-time compiler said of a file.

    Attributes:
        compiler: Name and version.
        capabilities: Compute capabilities that it built for.
        accepted: Whether it gave an engine.
        messages: Why not, each with the layer it speaks of.
        engine_bytes: Size of the engines together.
        seconds: Wall time.
    """

    compiler: str
    capabilities: Annotated[tuple[str, ...], Field(min_length=1)]
    accepted: Flag
    messages: tuple[str, ...] = ()
    engine_bytes: Count
    seconds: Seconds

    @model_validator(mode="after")
    def _accepted_without_reasons(self) -> Self:
        if self.accepted and self.messages:
            raise ValueError(f"accepted is true beside messages that say why not: {self.messages[0]}")
        return self
