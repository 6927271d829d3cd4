"""What is proven on a file: its layout, its numbers, and whether a compiler takes it."""

from __future__ import annotations

from snowsdeploy.values.base import Artifact, RunPath, Tristate


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
        layout_valid: Whether every group holds the pattern (False when the axis is not a multiple of M).
        found: Engine called the layer eligible for sparse tactics.
        chosen: Engine chose a sparse tactic.
        note: Anything a reader should know, e.g. why a layer cannot hold the pattern.
    """

    name: str
    tensor: str
    op: str
    shape: tuple[int, ...]
    axis: int
    zeros: float
    groups: int
    violations: int
    layout_valid: bool
    found: Tristate = "unknown"
    chosen: Tristate = "unknown"
    note: str = ""


class SparsityEvidence(Artifact):
    """The pattern, proven weight by weight on a file.

    Attributes:
        pattern: For example 2:4.
        file: The file that was read.
        layers: Every weight of a convolution or matrix product, in graph order.
        expected: Names of the layers that had to hold the pattern (empty when only inspecting).
        weights_covered: Weights in layers that hold the pattern.
        weights_total: Weights in all convolution and matrix-product layers.
    """

    pattern: str
    file: RunPath
    layers: tuple[LayerSparsity, ...]
    expected: tuple[str, ...] = ()
    weights_covered: int
    weights_total: int

    @property
    def coverage(self) -> float:
        """Share of all convolution and matrix-product weights whose layer holds the pattern, 0 to 1."""
        return self.weights_covered / self.weights_total if self.weights_total else 0.0


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
    batch: int
    max_abs: float
    relative_l2: float
    dtype: str = "float32"
    rounding: float | None = None

    def within(self, limit: float) -> bool:
        """Whether the difference is below a limit, or no more than rounding explains."""
        return self.relative_l2 <= limit or self.relative_l2 <= ROUNDING * (self.rounding or 0.0)


class Parity(Artifact):
    """The pruned torch program against the sparse ONNX file on the same inputs."""

    provider: str
    rows: tuple[ParityRow, ...]

    def __str__(self) -> str:
        """The largest error, and of which output where there are several."""
        if not self.rows:
            return "nothing compared"
        worst = max(self.rows, key=lambda row: row.relative_l2)
        what = "relative error" if worst.dtype.startswith("float") else "share of values that differ"
        where = f", at {worst.output}" if len({row.output for row in self.rows}) > 1 else ""
        return f"{what} at most {worst.relative_l2:.1e}{where}"

    @property
    def worst_relative_l2(self) -> float:
        """The largest relative L2 error of any row."""
        return max((r.relative_l2 for r in self.rows), default=float("nan"))


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
    capabilities: tuple[str, ...]
    accepted: bool
    messages: tuple[str, ...] = ()
    engine_bytes: int
    seconds: float
