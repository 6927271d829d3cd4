"""Options shared by several commands, each declared once; their values are checked by `snowsdeploy.config`."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from snowsdeploy.errors import UsageError

# Typer reads these at run time and does not understand every spelling of a union; Optional it does.
Model = Annotated[str, typer.Argument(help="A checkpoint, a .pt2 program, timm:NAME, or package.module:factory.")]
Arch = Annotated[Optional[str], typer.Option(help="Architecture of a checkpoint: a timm name or module:factory.")]
ModelArg = Annotated[Optional[list[str]], typer.Option(metavar="KEY=VALUE", help="Argument of the architecture.")]
AllowPickle = Annotated[Optional[bool], typer.Option("--allow-pickle", help="Load pickles. They run code: trust the file.")]
Data = Annotated[Optional[str], typer.Option(help="Calibration images: a folder, .npz or timm data set, with [slice].")]
EvalData = Annotated[Optional[str], typer.Option(help="Images that judge the result; as --data.")]
Samples = Annotated[Optional[int], typer.Option(help="Calibration images to use.  [default: 1024]")]
Seed = Annotated[Optional[int], typer.Option(help="Seed of every random choice.  [default: 0]")]
Mean = Annotated[Optional[str], typer.Option(help="Channel means on [0, 1] pixels, like 0.485,0.456,0.406.")]
Std = Annotated[Optional[str], typer.Option(help="Channel standard deviations, like 0.229,0.224,0.225.")]
InputSize = Annotated[Optional[str], typer.Option(metavar="C,H,W", help="Model input, like 3,224,224.")]
Interpolation = Annotated[Optional[str], typer.Option(help="Resize filter: bicubic, bilinear, nearest.")]
CropPct = Annotated[Optional[float], typer.Option(help="Centre-crop fraction of image files.")]
PatternOption = Annotated[Optional[str], typer.Option("--pattern", help="N:M.  [default: 2:4]")]
Selector = Annotated[Optional[str], typer.Option(help="Which weights stay: magnitude.")]
Include = Annotated[Optional[list[str]], typer.Option(metavar="GLOB", help="Prune only these layers. Repeatable.")]
Exclude = Annotated[Optional[list[str]], typer.Option(metavar="GLOB", help="Keep these layers dense. Repeatable.")]
Horizon = Annotated[Optional[int], typer.Option(help="Operations after a layer that are reconstructed; 0: exact fit.")]
Joint = Annotated[Optional[bool], typer.Option("--joint/--single", help="Solve residual blocks, or single layers.")]
Targets = Annotated[Optional[str], typer.Option(help="Reconstruct 'dense' activations, or from the pruned 'input'.")]
Curvature = Annotated[Optional[str], typer.Option(help="gauss-newton or hessian.")]
NewtonSteps = Annotated[Optional[int], typer.Option(help="Newton steps a solve; 0: exact least squares only.")]
CgSteps = Annotated[Optional[int], typer.Option(help="Conjugate-gradient steps a Newton step.")]
CurvatureSamples = Annotated[Optional[int], typer.Option(help="Images in a curvature product.")]
BatchSize = Annotated[Optional[int], typer.Option(help="Images in memory at once while solving.")]
Opset = Annotated[Optional[int], typer.Option(help="ONNX operator set.  [default: 20]")]
Provider = Annotated[Optional[str], typer.Option(help="cpu, cuda or tensorrt; never falls back.  [default: cpu]")]
LatencyBatch = Annotated[Optional[str], typer.Option(help="Batch sizes to time, like 1,8.")]
LatencyRuns = Annotated[Optional[int], typer.Option(help="Timed calls of each file and batch size.")]
Policy = Annotated[Optional[Path], typer.Option(help="Gate policy (TOML, table [gate]).")]
Config = Annotated[Optional[Path], typer.Option(help="TOML file with any of these options, - written as _.")]
Out = Annotated[Optional[Path], typer.Option(help="Run directory.")]
Force = Annotated[Optional[bool], typer.Option("--force", help="Overwrite results in --out.")]
Resume = Annotated[Optional[bool], typer.Option("--resume", help="Continue an interrupted run in --out.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result and errors.")]


def parse_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn option texts into values: comma lists into tuples, key=value into a dict; drop what was not given.

    Raises:
        UsageError: A text cannot be read.
    """
    parsed = {k: v for k, v in values.items() if v is not None and v != []}
    for name in ("mean", "std"):
        if name in parsed:
            parsed[name] = _numbers(f"--{name}", parsed[name], float)
    if "latency_batch" in parsed:
        parsed["latency_batch"] = _numbers("--latency-batch", parsed["latency_batch"], int)
    if "input_size" in parsed:
        parsed["input_size"] = _numbers("--input-size", parsed["input_size"].replace("x", ","), int)
    if "model_arg" in parsed:
        parsed["model_arg"] = dict(_pair(text) for text in parsed["model_arg"])
    return parsed


def _numbers(option: str, text: str, kind: type[float] | type[int]) -> tuple[float, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} is not a list of numbers", seen=text, allowed="numbers with commas between") from error


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError("--model-arg is not KEY=VALUE", seen=text, allowed="for example num_classes=10")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def command_line(arguments: Sequence[str]) -> str:
    """The command as typed, quoted for a shell."""
    import shlex

    return shlex.join(["snowsdeploy", *arguments])
