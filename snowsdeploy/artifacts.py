"""The values that flow between the stages; each is frozen and round-trips through JSON.

Checkpoint* -> Program* -> ImageSet* -> Masks* -> PruneReport (+ weights*) -> OnnxArtifact (dense, sparse)
  -> Variant (SparsityEvidence, Parity, Accuracy, Latency) for each precision -> Report -> Verdict; the starred ones
hold tensors and live elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1
Tristate = Literal["yes", "no", "unknown"]
Role = Literal["dense", "sparse"]
Precision = Literal["fp32", "fp16", "int8"]


class Artifact(BaseModel):
    """Base of every value that is written to JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Preprocessing(Artifact):
    """How raw images become the model's input.

    Attributes:
        input_size: Channels, height, width of one input.
        mean: Per-channel mean on [0, 1] pixels.
        std: Per-channel standard deviation on [0, 1] pixels.
        interpolation: Resize filter for image files: bicubic, bilinear or nearest.
        crop_pct: Centre-crop fraction: files are resized to input_size / crop_pct, then centre-cropped.
        crop_mode: timm's crop mode ("center", "squash" or "border").
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"


class SourceInfo(Artifact):
    """Where the model came from. `sha256` is of the checkpoint file, None when there is none."""

    source: str
    format: Literal["checkpoint", "safetensors", "pt2", "timm", "factory"]
    arch: str | None = None
    sha256: str | None = None


class DataInfo(Artifact):
    """Which images were used.

    Attributes:
        source: What the user typed.
        items: How many.
        labelled: Whether there are labels.
        origin: Identifies the source behind any slice.
        fingerprint: Identifies the items and the preprocessing, in order.
    """

    source: str
    items: int
    labelled: bool
    origin: str
    fingerprint: str


class LayerDecision(Artifact):
    """One convolution or linear layer of the graph: is it pruned, and if not, why not.

    Attributes:
        name: Module path (the weight's name without `.weight`), or the graph node where the weight has no name.
        weight: Fully qualified name of the weight in the state dict; None when the graph computes it.
        kind: conv or linear.
        shape: Shape of the weight as PyTorch stores it.
        calls: How often the graph uses the weight.
        prunable: Whether the layer is pruned.
        reason: Why not, empty when it is.
    """

    name: str
    weight: str | None
    kind: Literal["conv", "linear"]
    shape: tuple[int, ...]
    calls: int = 1
    prunable: bool
    reason: str = ""


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
        newton_seconds: Wall time of the Newton steps alone.
        seconds: Wall time of this solve.
        outcome: The solver's result as a sentence.
    """

    layers: tuple[str, ...]
    operations: int
    targets: str
    kept: int
    total: int
    vectors: int = 0
    loss_masked: float
    loss_initial: float
    loss_final: float
    held_back_initial: float | None = None
    held_back_final: float | None = None
    newton_steps: int
    products: int
    product_flops: float = 0.0
    product_precision: str = ""
    newton_seconds: float = 0.0
    seconds: float
    outcome: str


class PruneReport(Artifact):
    """The pruning stage: what was decided for each layer, and what each solve did."""

    pattern: str
    selector: str
    solver: dict[str, str | int | float | bool]
    decisions: tuple[LayerDecision, ...]
    solves: tuple[LayerReport, ...]
    final: LayerReport | None = None
    notes: tuple[str, ...] = ()
    calibration: DataInfo
    calibration_items: tuple[int, ...]
    seconds: float
    seed: int

    @property
    def pruned(self) -> tuple[LayerDecision, ...]:
        """The layers that were pruned, in graph order."""
        return tuple(d for d in self.decisions if d.prunable)


class OnnxArtifact(Artifact):
    """One exported file; each `output_names` entry is a tensor, in the order of the program's outputs.

    Attributes:
        precision: Of its matrix products and convolutions.
        kept: Nodes that a conversion left in FP32 -> why.
    """

    path: Path
    role: Role
    sha256: str
    size_bytes: int
    opset: int
    precision: Precision = "fp32"
    kept: dict[str, str] = Field(default_factory=dict)
    input_name: str
    output_names: tuple[str, ...]
    metadata: dict[str, str] = Field(default_factory=dict)


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


class FilePair(Artifact):
    """The dense and the sparse file of one precision."""

    dense: OnnxArtifact
    sparse: OnnxArtifact

    @property
    def precision(self) -> Precision:
        """Of both."""
        return self.sparse.precision


class ExportReport(Artifact):
    """The export stage: a pair of files for each precision; FP32, from which the others are made, is always there.

    Attributes:
        pairs: FP32 first.
        asked: The precisions that the user asked for; only these are judged.
    """

    pairs: tuple[FilePair, ...]
    asked: tuple[Precision, ...] = ("fp32",)

    @property
    def fp32(self) -> FilePair:
        """The files that every other precision is compared with."""
        return self.pairs[0]

    @property
    def judged(self) -> tuple[FilePair, ...]:
        """The pairs that were asked for."""
        return tuple(pair for pair in self.pairs if pair.precision in self.asked)


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
    file: Path
    layers: tuple[LayerSparsity, ...]
    expected: tuple[str, ...] = ()
    weights_covered: int
    weights_total: int

    @property
    def coverage(self) -> float:
        """Share of all convolution and matrix-product weights whose layer holds the pattern, 0 to 1."""
        return self.weights_covered / self.weights_total if self.weights_total else 0.0


class ParityRow(Artifact):
    """torch against ONNX for one output at one batch size."""

    output: str
    batch: int
    max_abs: float
    relative_l2: float


class Parity(Artifact):
    """The pruned torch program against the sparse ONNX file on the same inputs."""

    provider: str
    rows: tuple[ParityRow, ...]

    @property
    def worst_relative_l2(self) -> float:
        """The largest relative L2 error of any row."""
        return max((r.relative_l2 for r in self.rows), default=float("nan"))


class Proportion(Artifact):
    """k of n with a confidence interval (Wilson), as fractions from 0 to 1."""

    successes: int
    total: int
    low: float
    high: float
    confidence: float = 0.95

    @property
    def value(self) -> float:
        """The point estimate."""
        return self.successes / self.total


class PairedTest(Artifact):
    """McNemar's exact test on images where exactly one of two models is right, and the drop's interval.

    Attributes:
        only_dense: Images that only the dense model gets right.
        only_sparse: Images that only the sparse model gets right.
        p_value: Two-sided exact p-value.
        drop: Dense minus sparse top-1, in percentage points.
        drop_low: Lower end of its interval, percentage points.
        drop_high: Upper end of its interval, percentage points.
    """

    only_dense: int
    only_sparse: int
    p_value: float
    drop: float
    drop_low: float
    drop_high: float
    confidence: float = 0.95


class Agreement(Artifact):
    """How alike sparse and dense outputs are; needs no labels."""

    top1: Proportion
    cosine: float
    kl: float


class Accuracy(Artifact):
    """Dense in FP32 and sparse, both measured from their ONNX files. The labelled parts are None without labels.

    Attributes:
        same_precision_top1: The dense file in the sparse file's precision: what the precision alone costs.
    """

    data: DataInfo
    provider: str
    dense_top1: Proportion | None = None
    sparse_top1: Proportion | None = None
    dense_top5: Proportion | None = None
    sparse_top5: Proportion | None = None
    same_precision_top1: Proportion | None = None
    paired: PairedTest | None = None
    agreement: Agreement


class LatencySeries(Artifact):
    """Latencies of one file at one batch size, milliseconds a call.

    Attributes:
        p50_low_ms: Lower end of the median's interval, at the ratio's level of confidence.
        p50_high_ms: Its upper end.
    """

    role: Literal["dense", "sparse"]
    batch: int
    runs: int
    mean_ms: float
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p99_ms: float
    cov: float


class LatencyRatio(Artifact):
    """Dense over sparse median latency at one batch size (above 1: sparse is faster), with a bootstrap interval."""

    batch: int
    speedup: float
    low: float
    high: float
    confidence: float = 0.95


class Latency(Artifact):
    """Dense and sparse timed in one run, interleaved.

    Attributes:
        requested: The provider asked for.
        providers: Providers that really ran nodes, by number of nodes, from ORT's graph assignment.
        uses_sparsity: Whether any provider that ran can use the pattern.
        note: What a reader must know about these figures.
    """

    requested: str
    providers: dict[str, int]
    uses_sparsity: Tristate
    series: tuple[LatencySeries, ...]
    ratios: tuple[LatencyRatio, ...]
    note: str = ""


class Environment(Artifact):
    """The machine and the versions behind every figure."""

    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    os: str
    versions: dict[str, str]


class TimedFile(Artifact):
    """Latencies of a file at one batch size, milliseconds a call; the median with its interval."""

    file: Path
    batch: int
    runs: int
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    cov: float
    images_per_second: float


class FileRatio(Artifact):
    """Median of the baseline over that of a file (above 1: the file is faster), with its interval."""

    file: Path
    baseline: Path
    batch: int
    speedup: float
    low: float
    high: float


class OperatorTime(Artifact):
    """Time of one operator in a call.

    Attributes:
        ms: Milliseconds of all its nodes.
        share: Of all nodes, 0 to 1.
        pruned_ms: Milliseconds in nodes that multiply by a pruned weight.
    """

    operator: str
    ms: float
    share: float
    pruned_ms: float


class ProfiledFile(Artifact):
    """Where the time of a file goes.

    Attributes:
        pruned_share: Share of the time in products with pruned weights.
        best_speedup: What sparse tensor cores could reach at most, if those products ran twice as fast.
    """

    file: Path
    operators: tuple[OperatorTime, ...]
    pruned_share: float
    best_speedup: float


class Profile(Artifact):
    """Files side by side."""

    provider: str
    environment: Environment
    series: tuple[TimedFile, ...]
    ratios: tuple[FileRatio, ...]
    files: tuple[ProfiledFile, ...]
    note: str = ""


class RuleResult(Artifact):
    """One gate rule: what was measured, the limit, the verdict and why."""

    rule: str
    measured: str
    limit: str
    verdict: Literal["pass", "fail", "inconclusive"]
    reason: str = ""

    @property
    def account(self) -> str:
        """What was measured, the limit and why, on one line."""
        return f"measured {self.measured}, limit {self.limit}" + (f": {self.reason}" if self.reason else "")


class Verdict(Artifact):
    """All rules together: any fail fails, else any inconclusive is inconclusive."""

    verdict: Literal["pass", "fail", "inconclusive"]
    rules: tuple[RuleResult, ...]

    def __bool__(self) -> bool:
        return self.verdict == "pass"


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


class Variant(Artifact):
    """One precision: its files and what was measured on them. What was not measured is None."""

    dense: OnnxArtifact
    sparse: OnnxArtifact
    sparsity: SparsityEvidence | None = None
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    compilation: Compilation | None = None

    @property
    def precision(self) -> Precision:
        """Of both files."""
        return self.sparse.precision


class Report(Artifact):
    """Everything a run has shown.

    Attributes:
        variants: One for each precision that was asked for.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    created: str
    command: str
    environment: Environment
    source: SourceInfo
    preprocessing: Preprocessing
    prune: PruneReport
    variants: tuple[Variant, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None
    verdict: Verdict | None = None
