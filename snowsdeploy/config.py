"""Every setting of a run, by the name of its command-line option; a TOML file holds the same names."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from snowsdeploy.artifacts import Format, Precision
from snowsdeploy.errors import UsageError
from snowsdeploy.selectors import make_selector
from snowsdeploy.selectors.base import AbstractLossSelector, AbstractScore
from snowsdeploy.sparsity.pattern import Pattern

T = TypeVar("T", bound="Settings")
Channels = tuple[float, ...]
ProviderName = Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx"]


class Settings(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Settings):
    """Where the model comes from and how images enter it."""

    model: str
    arch: str | None = None
    model_arg: dict[str, Any] = Field(default_factory=dict)
    allow_pickle: bool = False
    mean: Channels | None = None
    std: Channels | None = None
    input_size: tuple[int, int, int] | None = None
    interpolation: Literal["bicubic", "bilinear", "nearest"] | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None

    @field_validator("std")
    @classmethod
    def _positive(cls, value: Channels | None) -> Channels | None:
        if value is not None and not all(v > 0 for v in value):
            raise ValueError("every value must be above 0")
        return value


class PruneSettings(Settings):
    """Mask and solver.

    Attributes:
        permute: Put channels in an order in which N:M masks keep more, before masks are chosen; where it is not
            given, for every N:M pattern.
        permute_score: What a weight is worth there: its `magnitude`, the error of its layer's output without it
            (`inputs`), or that error weighed by the model's output `curvature`.
        selector: Which weights stay: by the inputs of a layer (magnitude, wanda, sparsegpt, obc, exchange), or by the
            model's loss (woodfisher, woodtaylor, lm, qm, obd).
        selector_arg: Settings of the selector, by the names of its fields.
        threshold: What unstructured scores are compared across; `method`: as the selector's paper does.
        layer_cap: Largest share of a layer that a global threshold prunes.
        mask_steps: Steps of a loss selector, which looks again at what is left after each; without it as its paper
            does: 14 for lm, qm and obd, else one. N:M has at most M - N, so that 2:4 is reached by way of 3:4.
        labels: Of the loss: the data's, or sampled from the model's own softmax; `auto`: the data's if it has any.
        solver: `snows`; `k0`: exact least squares of each layer; `none`: the mask, and the selector's own update
            where it has one. Sets what follows where that is not given.
        effort: A point on the curve of accuracy against time: what the settings below are where they are not given.
        held_back: Share of the calibration images that no solve sees: a solve ends before it would raise its loss on
            them, and `targets = auto` is decided on them.
        horizon: Where a window ends: K counted operations after its last layer (0: the layer's own output, solved
            exactly), `block`: the residual sum that the layers flow into, or `model`: that and the model's output.
        joint: Solve all layers of a residual block together.
        solve_layers: Join residual blocks until so many layers are solved together.
        targets: `dense`: activations of the dense model; `input`: the dense layers on the pruned prefix (the paper);
            a number from 0 to 1: that share of dense; `auto`: measured for each unit.
        sensitivity: Share of the model's output curvature in the measure of an error at a block's end.
        newton_steps: Newton steps a unit; 0 leaves the exact masked least-squares solution of each layer.
        cg_steps: Curvature products a Newton step.
        curvature_samples: Images in a curvature product, or `all`; the gradient always sees all.
        products: Precision of curvature products; less than float32 only where its measured error is small.
        compile_products: Trace and compile the products of each solve; pays for small windows on a GPU.
        variables: `all`: biases, normalisation scales and shifts vary too, free at inference; or `weights`.
        reestimate_norms: Move batch normalisation statistics after the units are solved, where it helps.
        final_steps: Newton steps of a final pass over all kept weights towards the dense outputs; 0 leaves it out.
    """

    data: str
    samples: Annotated[int, Field(ge=1)] = 1024
    seed: Annotated[int, Field(ge=0)] = 0
    pattern: str = "2:4"
    selector: str = "exchange"
    selector_arg: dict[str, Any] = Field(default_factory=dict)
    threshold: Literal["method", "row", "layer", "global"] = "method"
    layer_cap: Annotated[float, Field(gt=0, le=1)] = 0.99
    mask_steps: Annotated[int, Field(ge=1)] | None = None
    labels: Literal["auto", "data", "sampled"] = "auto"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    permute: bool | None = None
    permute_score: Literal["magnitude", "inputs", "curvature"] = "inputs"
    effort: Literal["fast", "default", "max"] = "default"
    solver: Literal["snows", "k0", "none"] = "snows"
    held_back: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    horizon: Annotated[int, Field(ge=0)] | Literal["block", "model"] = "block"
    joint: bool = True
    solve_layers: Annotated[int, Field(ge=1)] = 4
    targets: Annotated[float, Field(ge=0, le=1)] | Literal["dense", "input", "auto"] = "dense"
    sensitivity: Annotated[float, Field(ge=0, le=1)] = 0.9
    curvature: Literal["gauss-newton", "hessian"] = "gauss-newton"
    preconditioner: Literal["none", "diagonal", "cholesky", "kronecker"] = "kronecker"
    newton_steps: Annotated[int, Field(ge=0)] = 1
    cg_steps: Annotated[int, Field(ge=1)] = 10
    curvature_samples: Annotated[int, Field(ge=1)] | Literal["all"] = 512
    products: Literal["float32", "tf32", "bfloat16"] = "float32"
    compile_products: bool = False
    variables: Literal["weights", "all"] = "all"
    reestimate_norms: bool = False
    final_steps: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=1)] = 64

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        return str(Pattern.parse(value))

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if self.targets == "auto" and not self.held_back:
            raise UsageError(
                "--targets auto needs images to decide on", seen="--held-back 0", allowed="for example --held-back 0.1"
            )
        return self

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        if self.permute and Pattern.parse(self.pattern).sparsity is not None:
            raise UsageError("--permute needs groups of weights", seen=f"--pattern {self.pattern}", allowed="N:M")
        return self

    @property
    def permutes(self) -> bool:
        """Whether channels are put in another order."""
        return Pattern.parse(self.pattern).sparsity is None if self.permute is None else self.permute

    @model_validator(mode="after")
    def _selection(self) -> Self:
        selector, pattern = make_selector(self.selector, self.selector_arg), Pattern.parse(self.pattern)
        by_loss = isinstance(selector, AbstractLossSelector)
        if self.threshold != "method" and pattern.sparsity is None:
            raise UsageError(
                "--threshold is for unstructured patterns", seen=self.pattern, fix="leave it out, or use --pattern 90%"
            )
        if self.threshold in ("row", "global") and not (by_loss or isinstance(selector, AbstractScore)):
            raise UsageError(
                f"--threshold {self.threshold} needs a score for each weight",
                seen=f"--selector {self.selector}, which chooses a layer's mask as a whole",
                fix="leave --threshold out, or use another selector",
            )
        if (self.mask_steps or 1) > 1 and not by_loss:
            raise UsageError(
                "--mask-steps is for selectors that read the loss",
                seen=f"--selector {self.selector}",
                fix="leave it out",
            )
        if self.labels != "auto" and not by_loss:
            raise UsageError(
                "--labels is for selectors that read the loss", seen=f"--selector {self.selector}", fix="leave it out"
            )
        across = selector.threshold if self.threshold == "method" else self.threshold
        if pattern.sparsity is not None and across == "global" and pattern.sparsity > self.layer_cap:
            raise UsageError(
                "--layer-cap is below the share of zeros", seen=f"{self.layer_cap:g}", fix=f"raise it above {pattern}"
            )
        return self

    @model_validator(mode="after")
    def _unsolved(self) -> Self:
        if self.solver == "none" and (self.newton_steps or self.final_steps or self.reestimate_norms):
            raise UsageError(
                "--solver none applies masks and nothing else",
                seen="--newton-steps, --final-steps or --reestimate-norms",
                fix="leave them out, or use --solver k0 or snows",
            )
        return self


class ResourceSettings(Settings):
    """What the pruning stage may use.

    Attributes:
        device: `auto`: a GPU where PyTorch can use one; `cpu`, `cuda` or `cuda:N`.
        memory: Budget of the process on the device, such as `8GiB`; without it most of what is left there.
        activations: Where activations of the calibration images are between uses; `auto`: on the device if they fit,
            else on the host (of a GPU), on disk or in half precision, else computed again.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    memory: Annotated[ByteSize, Field(gt=0)] | None = None
    activations: Literal["auto", "memory", "host", "half", "disk", "recompute"] = "auto"


class RuntimeSettings(Settings):
    """Where and how ONNX files run.

    Attributes:
        provider: Must run every node, or nothing runs.
        provider_option: ONNX Runtime's options of that provider, laid over ours.
        allow_fallback: Providers that may run the nodes that it leaves.
        engine_cache: Folder for compiled engines, each under a key of its own; without it every session compiles.
    """

    provider: ProviderName = "cpu"
    provider_option: dict[str, str] = Field(default_factory=dict)
    allow_fallback: tuple[ProviderName, ...] = ()
    engine_cache: Path | None = None

    @field_validator("provider_option", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        """TOML has numbers and truth values where ONNX Runtime wants texts."""
        if not isinstance(value, dict):
            return value
        return {key: str(int(v) if isinstance(v, bool) else v) for key, v in value.items()}


class MeasureSettings(RuntimeSettings):
    """What is measured on the exported files, and how it is judged.

    Attributes:
        compile_for: Compute capabilities for which TensorRT-RTX must take the sparse files; needs no GPU.
    """

    eval_data: str | None = None
    eval_batch: Annotated[int, Field(ge=1)] = 100
    compile_for: tuple[Literal["7.5", "8.0", "8.6", "8.9", "12.0"], ...] = ()
    latency_batch: tuple[Annotated[int, Field(ge=1)], ...] = (1, 8)
    latency_runs: Annotated[int, Field(ge=5)] = 50
    policy: Path | None = None


class ValidateSettings(MeasureSettings):
    """The validation stage alone, which can also take what is known of engines built from the files.

    Attributes:
        engine_log: Verbose build logs of TensorRT: `FILE`, or `PRECISION=FILE`.
        engine_layers: Its engine inspector's JSON files, written in the same way.
    """

    engine_log: tuple[str, ...] = ()
    engine_layers: tuple[str, ...] = ()


class ExportSettings(Settings):
    """Which files are written.

    Attributes:
        opset: ONNX operator set.
        precision: A dense and a sparse file for each; FP32 is always written, since the others are made from it.
        keep_fp32: Layers or nodes that a conversion leaves in FP32; `*` and `?` stand for more.
        format: The ONNX files are always written, since the other formats are made from them.
        uint8_input: A serving file takes pixels `[batch, H, W, C]` and normalises them in the graph.
        softmax: A serving file ends in probabilities.
        top_k: A serving file also gives so many largest values and their classes.
    """

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    precision: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp32",)
    keep_fp32: tuple[str, ...] = ()
    format: Annotated[tuple[Format, ...], Field(min_length=1)] = ("onnx",)
    uint8_input: bool = False
    softmax: bool = False
    top_k: Annotated[int, Field(ge=1)] | None = None

    @field_validator("precision", mode="before")
    @classmethod
    def _runs_here(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the user wrote
        if isinstance(value, tuple | list) and "bf16" in value:
            raise UsageError(
                "--precision bf16 is not offered: no file in it could be verified",
                seen="ONNX Runtime's CPU provider has no bfloat16 Conv, MatMul or Gemm",
                allowed="fp32, fp16, int8",
                fix="use fp16: a node whose values would overflow stays in FP32",
            )
        return value

    @property
    def serving(self) -> bool:
        """Whether serving files are asked for."""
        return self.uint8_input or self.softmax or self.top_k is not None


class RunConfig(ModelSettings, PruneSettings, ResourceSettings, ExportSettings, MeasureSettings):
    """The main job.

    Attributes:
        keep_dense_until_gate: After the solve, put the fewest units back to dense that let the accuracy rules pass.
    """

    out: Path
    keep_dense_until_gate: bool = False
    force: bool = False
    resume: bool = False

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if self.keep_dense_until_gate and not self.eval_data:
            raise UsageError(
                "--keep-dense-until-gate needs images to judge on", seen="no --eval-data", fix="pass --eval-data"
            )
        return self


_LAYERS: dict[str, Any] = {"horizon": 0, "joint": False, "targets": "input", "newton_steps": 0}
EFFORTS: dict[str, dict[str, Any]] = {
    "fast": {"solver": "k0"},
    "default": {},
    "max": {"newton_steps": 2, "final_steps": 2, "curvature_samples": "all"},
}


SOLVERS: dict[str, dict[str, Any]] = {
    "snows": {},
    "k0": _LAYERS,
    # the papers' moments, unweighted
    "none": _LAYERS | {"final_steps": 0, "sensitivity": 0.0},
}


def build_config(kind: type[T], options: Mapping[str, Any], toml: Path | None = None) -> T:
    """Merge an effort's and a solver's settings, a TOML file and command-line options; later ones win.

    Args:
        kind: The settings class.
        options: Option values by name; None means not given.
        toml: File with the same names as keys; it may hold those of the main job that `kind` does not use.

    Raises:
        UsageError: An unknown key or a value that is not allowed; all of them are named.
    """
    known = {*RunConfig.model_fields, *ValidateSettings.model_fields}
    values = _read_toml(toml, known) if toml else {}
    values = {k: v for k, v in values.items() if k in kind.model_fields}
    values |= {k: v for k, v in options.items() if v is not None}
    if "effort" in kind.model_fields:
        effort = EFFORTS.get(str(values.get("effort")), {})
        solver = SOLVERS.get(str((effort | values).get("solver")), {})
        values = effort | solver | values
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explain(error) from error


def _explain(error: ValidationError) -> UsageError:
    missing = [_option(e["loc"][0]) for e in error.errors() if e["type"] == "missing"]
    wrong = _causes([e for e in error.errors() if e["type"] != "missing"])
    if not wrong:
        return UsageError(f"{', '.join(missing)} must be given", fix="as an option, or as a key of the --config file")
    names = list(dict.fromkeys(_option(e["loc"][0]) for e in wrong))
    seen = dict.fromkeys(str(e["input"]) for e in wrong)
    allowed = dict.fromkeys(e["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for e in wrong)
    fix = f"{', '.join(missing)} must be given as well" if missing else None
    what = f"{', '.join(names)} cannot have this value"
    return UsageError(what, seen="; ".join(seen), allowed="; ".join(allowed), fix=fix)


def _causes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the complaint that a list is too short which only follows from an item that was refused."""
    others = {e["loc"][0] for e in errors if e["type"] != "too_short"}
    return [e for e in errors if e["type"] != "too_short" or e["loc"][0] not in others]


def _option(field: int | str) -> str:
    return "MODEL" if field == "model" else f"--{str(field).replace('_', '-')}"


def _read_toml(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("--config cannot be read", seen=path, fix="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("--config is not valid TOML", seen=f"{path}: {error}") from error
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            raise UsageError(
                f"--config {path} has an unknown key",
                seen=key,
                allowed=", ".join(sorted(known)),
                fix=f"did you mean {close[0]}?" if close else "remove it",
            )
    return values
