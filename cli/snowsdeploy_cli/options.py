"""Options shared by several commands, each declared once; their values are checked by `snowsdeploy.config`.

Every default is None, which means: not given, so that a TOML file or the library's default decides. The defaults
shown in the help are texts, because reading them from the library would import torch; a test compares them.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from typer.models import OptionInfo

from snowsdeploy.errors import UsageError


def _option(panel: str, text: str, *names: str, default: str | bool = False, metavar: str | None = None) -> OptionInfo:
    option: OptionInfo = typer.Option(*names, help=text, rich_help_panel=panel, show_default=default, metavar=metavar)
    return option


_MODEL, _DATA, _PRUNING, _SOLVER, _RESOURCES = "Model", "Images", "Pruning", "Solver", "Resources"
_CHECKS, _RUN = "Export, validation and gates", "Run"
_Text: TypeAlias = str | None
_Texts: TypeAlias = list[str] | None
_Count: TypeAlias = int | None
_Flag: TypeAlias = bool | None

Model = Annotated[str, typer.Argument(help="A checkpoint, a .pt2 program, timm:NAME or package.module:factory.")]
Arch = Annotated[_Text, _option(_MODEL, "Architecture of a checkpoint: a timm name or module:factory.")]
ModelArg = Annotated[_Texts, _option(_MODEL, "Argument of the architecture; repeatable.", metavar="KEY=VALUE")]
AllowPickle = Annotated[_Flag, _option(_MODEL, "Load pickles, which run code: trust the file.", "--allow-pickle")]

Data = Annotated[_Text, _option(_DATA, "Calibrates: an image folder, .npz or timm data set; 'x.npz\\[0::2]' slices.")]
EvalData = Annotated[_Text, _option(_DATA, "Judges; written as --data.")]
Samples = Annotated[_Count, _option(_DATA, "Calibration images to use.", default="1024")]
Mean = Annotated[_Text, _option(_DATA, "Mean of pixels from 0 to 1, like 0.485,0.456,0.406.", metavar="R,G,B")]
Std = Annotated[_Text, _option(_DATA, "Their standard deviation.", metavar="R,G,B")]
InputSize = Annotated[_Text, _option(_DATA, "Model input; 224x224 means 3,224,224.", metavar="C,H,W")]
Interpolation = Annotated[_Text, _option(_DATA, "Resize filter of image files.", metavar="bicubic|bilinear|nearest")]
CropPct = Annotated[float | None, _option(_DATA, "Centre-crop fraction of image files.")]

PatternOption = Annotated[
    _Text, _option(_PRUNING, "N of M weights stay; or a share of zeros.", "--pattern", default="2:4", metavar="N:M|P%")
]
Selector = Annotated[
    _Text,
    _option(
        _PRUNING,
        "Which weights stay: magnitude, wanda, sparsegpt, obc, exchange (by a layer's inputs); "
        "woodfisher, woodtaylor, lm, qm, obd (by the loss).",
        default="exchange",
        metavar="NAME",
    ),
]
SelectorArg = Annotated[_Texts, _option(_PRUNING, "Setting of the selector; repeatable.", metavar="KEY=VALUE")]
Threshold = Annotated[
    _Text,
    _option(_PRUNING, "Compare unstructured scores across.", default="method", metavar="method|row|layer|global"),
]
LayerCap = Annotated[float | None, _option(_PRUNING, "Most that --threshold global takes of a layer.", default="0.99")]
MaskSteps = Annotated[_Count, _option(_PRUNING, "Steps of a selector that reads the loss; else as its paper.")]
Labels = Annotated[_Text, _option(_PRUNING, "Of that loss.", default="auto", metavar="auto|data|sampled")]
Solver = Annotated[
    _Text,
    _option(
        _SOLVER,
        "SNOWS, exact least squares of layers, or masks with the selector's own update.",
        default="snows",
        metavar="snows|k0|none",
    ),
]
Include = Annotated[_Texts, _option(_PRUNING, "Prune only these layers; repeatable.", metavar="GLOB")]
Exclude = Annotated[_Texts, _option(_PRUNING, "Keep these layers dense; repeatable.", metavar="GLOB")]
Permute = Annotated[
    _Flag, _option(_PRUNING, "Order channels so that masks keep more; on for N:M.", "--permute/--no-permute")
]
PermuteScore = Annotated[
    _Text,
    _option(_PRUNING, "What counts as more.", default="inputs", metavar="magnitude|inputs|curvature"),
]
Effort = Annotated[
    _Text,
    _option(_SOLVER, "Accuracy against time; sets what follows.", default="default", metavar="fast|default|max"),
]
HeldBack = Annotated[float | None, _option(_SOLVER, "Share of the images that no solve sees.", default="0.0")]
Horizon = Annotated[
    _Text,
    _option(
        _SOLVER,
        "Reconstruct K operations on, or to an end.",
        default="block",
        metavar="K|block|model",
    ),
]
Joint = Annotated[
    _Flag, _option(_SOLVER, "Solve residual blocks, or layer by layer.", "--joint/--single", default="joint")
]
SolveLayers = Annotated[_Count, _option(_SOLVER, "Join blocks up to so many layers a solve.", default="4")]
Targets = Annotated[
    _Text,
    _option(
        _SOLVER,
        "Targets of the dense model or the pruned input, or a share of dense.",
        default="dense",
        metavar="dense|input|auto|SHARE",
    ),
]
Sensitivity = Annotated[
    float | None, _option(_SOLVER, "Share of the output's curvature in a block's error.", default="0.9")
]
Curvature = Annotated[
    _Text, _option(_SOLVER, "Curvature matrix.", default="gauss-newton", metavar="gauss-newton|hessian")
]
Preconditioner = Annotated[
    _Text, _option(_SOLVER, "Of conjugate gradients.", default="kronecker", metavar="none|diagonal|cholesky|kronecker")
]
NewtonSteps = Annotated[_Count, _option(_SOLVER, "Newton steps a solve; 0: exact least squares only.", default="1")]
CgSteps = Annotated[_Count, _option(_SOLVER, "Curvature products a Newton step.", default="10")]
CurvatureSamples = Annotated[_Text, _option(_SOLVER, "Images in a curvature product.", default="512", metavar="N|all")]
Products = Annotated[
    _Text,
    _option(_RESOURCES, "Precision of the products, if near.", default="float32", metavar="float32|tf32|bfloat16"),
]
CompileProducts = Annotated[
    _Flag, _option(_RESOURCES, "Compile them: for small windows on a GPU.", "--compile-products")
]
Variables = Annotated[
    _Text, _option(_SOLVER, "all: biases and normalisations too.", default="all", metavar="weights|all")
]
ReestimateNorms = Annotated[
    _Flag, _option(_SOLVER, "Re-estimate batch normalisation, if it helps.", "--reestimate-norms")
]
FinalSteps = Annotated[_Count, _option(_SOLVER, "Newton steps over the whole model at the end.", default="0")]
BatchSize = Annotated[_Count, _option(_RESOURCES, "Images in memory at once, at most.", default="64")]
Device = Annotated[_Text, _option(_RESOURCES, "Where to solve.", default="auto", metavar="auto|cpu|cuda:N")]
Memory = Annotated[_Text, _option(_RESOURCES, "Budget of the process; else most of what is free.", metavar="8GiB")]
ActivationsOption = Annotated[
    _Text,
    _option(
        _RESOURCES,
        "Where they lie between uses.",
        "--activations",
        default="auto",
        metavar="memory|host|disk|half|recompute",
    ),
]

Opset = Annotated[_Count, _option(_CHECKS, "ONNX operator set.", default="20")]
Precision = Annotated[
    _Texts, _option(_CHECKS, "Files to make and judge; a list, or repeated.", default="fp32", metavar="fp32,fp16,int8")
]
KeepFp32 = Annotated[
    _Texts, _option(_CHECKS, "Leave these layers or nodes in FP32; repeatable.", "--keep-fp32", metavar="GLOB")
]
Format = Annotated[
    _Texts,
    _option(_CHECKS, "Also write tensorrt, triton or torch; a list.", "--format", default="onnx", metavar="NAME,NAME"),
]
Uint8Input = Annotated[_Flag, _option(_CHECKS, "Also serving.onnx, which takes uint8 NHWC.", "--uint8-input")]
Softmax = Annotated[_Flag, _option(_CHECKS, "Also serving.onnx, which ends in probabilities.", "--softmax")]
TopK = Annotated[_Count, _option(_CHECKS, "Also serving.onnx, which gives the K best classes.", metavar="K")]
Provider = Annotated[
    _Text, _option(_CHECKS, "Where the files run: cpu, cuda, tensorrt, tensorrt-rtx.", default="cpu", metavar="NAME")
]
ProviderOption = Annotated[
    _Texts, _option(_CHECKS, "Option of ONNX Runtime's provider; repeatable.", metavar="KEY=VALUE")
]
AllowFallback = Annotated[_Texts, _option(_CHECKS, "Providers that may run what it leaves.", metavar="NAME,NAME")]
EngineCache = Annotated[Path | None, _option(_CHECKS, "Keep compiled engines in this folder.", metavar="FOLDER")]
CompileFor = Annotated[
    _Texts, _option(_CHECKS, "Compute capabilities whose compiler must take the files.", metavar="8.6,8.9,12.0")
]
EngineLog = Annotated[
    _Texts,
    _option(_CHECKS, "TensorRT's verbose build log of the sparse file.", metavar="FILE|PRECISION=FILE"),
]
EngineLayers = Annotated[
    _Texts,
    _option(_CHECKS, "Its engine inspector's JSON (--exportLayerInfo).", metavar="FILE|PRECISION=FILE"),
]
EvalBatch = Annotated[_Count, _option(_CHECKS, "Images a call when accuracy is measured.", default="100")]
LatencyBatch = Annotated[
    _Texts, _option(_CHECKS, "Batch sizes to time; a list, or repeated.", default="1,8", metavar="N,N")
]
LatencyRuns = Annotated[_Count, _option(_CHECKS, "Timed calls of each file and batch size.", default="50")]
Policy = Annotated[Path | None, _option(_CHECKS, "Limits of the gates, a TOML file.")]

KeepDense = Annotated[
    _Flag, _option(_CHECKS, "Keep the fewest layers dense that let the accuracy gates pass.", "--keep-dense-until-gate")
]

Out = Annotated[Path | None, _option(_RUN, "Run directory: everything is written there.")]
Config = Annotated[Path | None, _option(_RUN, "TOML file with any of these options; - is written as _.")]
Seed = Annotated[_Count, _option(_RUN, "Seed of every random choice.", default="0")]
Force = Annotated[_Flag, _option(_RUN, "Overwrite results in --out.", "--force")]
Resume = Annotated[_Flag, _option(_RUN, "Continue an interrupted run in --out.", "--resume")]
Quiet = Annotated[bool, _option(_RUN, "Only warnings, errors and the result.", "--quiet", "-q")]


def parse_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn option texts into values: comma lists into tuples, key=value into a dict; drop what was not given.

    Raises:
        UsageError: A text cannot be read.
    """
    parsed = {k: v for k, v in values.items() if v is not None and v != []}
    for name, read in _READERS.items():
        if name in parsed:
            parsed[name] = read(parsed[name])
    return parsed


def _numbers(option: str, text: str, kind: type[float] | type[int]) -> tuple[float, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        allowed = f"{'whole numbers' if kind is int else 'numbers'} with commas between"
        raise UsageError(f"{option} cannot be read", seen=text, allowed=allowed) from error


def _size(text: str) -> tuple[float, ...]:
    if "x" in text:
        text = f"3,{text.replace('x', ',')}"
    size = _numbers("--input-size", text, int)
    if len(size) != 3:
        raise UsageError("--input-size cannot be read", seen=text, allowed="C,H,W like 3,224,224, or HxW like 224x224")
    return size


def _setting(option: str, text: str, example: str = "device_id=0") -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"{option} is not KEY=VALUE", seen=text, allowed=f"for example {example}")
    return key, value


def _pair(option: str, text: str, example: str) -> tuple[str, Any]:
    key, value = _setting(option, text, example)
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


_READERS: dict[str, Callable[[Any], Any]] = {
    "mean": lambda text: _numbers("--mean", text, float),
    "std": lambda text: _numbers("--std", text, float),
    "input_size": _size,
    "latency_batch": lambda texts: _numbers("--latency-batch", ",".join(texts), int),
    "compile_for": lambda texts: tuple(",".join(texts).split(",")),
    "precision": lambda texts: tuple(",".join(texts).split(",")),
    "allow_fallback": lambda texts: tuple(",".join(texts).split(",")),
    "provider_option": lambda texts: dict(_setting("--provider-option", text) for text in texts),
    "format": lambda texts: tuple(",".join(texts).split(",")),
    "model_arg": lambda texts: dict(_pair("--model-arg", text, "num_classes=10") for text in texts),
    "selector_arg": lambda texts: dict(_pair("--selector-arg", text, "damping=0.01") for text in texts),
}


def command_line(arguments: Sequence[str]) -> str:
    """The command as typed, quoted for a shell."""
    return shlex.join(["snowsdeploy", *arguments])
