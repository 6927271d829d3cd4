"""Strings, paths and Python objects -> the program and the samples of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from snowsdeploy.data.memory import Held, held_size, hold
from snowsdeploy.data.open import natural_input_size, open_samples
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import DataError, UsageError
from snowsdeploy.models.objects import adopt_object
from snowsdeploy.models.program import Program
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import adopt, trace
from snowsdeploy.settings.jobs import PlanJob
from snowsdeploy.settings.model import ModelSettings
from snowsdeploy.values import Preprocessing, PruneReport


@dataclass(frozen=True)
class Inputs:
    """What a run works on.

    Attributes:
        program: The dense program.
        calibration: What it is pruned on.
        evaluation: What it is judged on; None where nothing was named.
    """

    program: Program
    calibration: Samples
    evaluation: Samples | None = None


def load_inputs(settings: PlanJob, eval_data: str | None = None) -> Inputs:
    """MODEL and `--data` as a user types them.

    Args:
        settings: Of the job.
        eval_data: `--eval-data`; opened now, so that a wrong path is known before minutes are spent.

    Raises:
        SourceError: The model cannot be loaded.
        GraphError: It cannot be traced.
        DataError: Images cannot be read.
        UsageError: Nothing tells the preprocessing.
    """
    program = load_program(settings, settings.data)
    calibration = open_samples(settings.data, program.preprocessing).sample(settings.samples, settings.seed)
    return Inputs(program, calibration, open_evaluation(eval_data, program))


def hold_inputs(model: object, data: object, eval_data: object, settings: PlanJob) -> Inputs:
    """What a Python program holds; strings and paths as the command line takes them.

    Inputs that are tensors are taken as they are: mean and deviation then only say how a serving file would make them.

    Args:
        model: A source, a module, a program of torch.export, or a `Program`.
        data: A source, a tensor, `(tensor, labels)`, a torch `Dataset`, or an iterable of batches.
        eval_data: The same; None for no evaluation.
        settings: Of the job; what they say of model and data is not read where those are objects.

    Raises:
        SourceError: The model cannot be used.
        GraphError: It cannot be traced.
        DataError: Images cannot be read, or do not have the model's input size.
        UsageError: Nothing tells the preprocessing.
    """
    held = [
        None if values is None or isinstance(values, str | Path) else hold(values, option=name, at_most=most)
        for name, values, most in (("data", data, settings.samples), ("eval_data", eval_data, None))
    ]
    program = _program(model, data, held, settings)
    opened = []
    for name, values, tensors in zip(("data", "eval_data"), (data, eval_data), held, strict=True):
        if tensors is None:
            opened.append(None if values is None else open_samples(str(values), program.preprocessing, option=name))
            continue
        if tensors.input_size != program.preprocessing.input_size:
            raise DataError(
                f"the images of {name} do not have the model's input size",
                seen="x".join(map(str, tensors.input_size)),
                allowed="x".join(map(str, program.preprocessing.input_size)),
            )
        opened.append(tensors.samples())
    calibration, evaluation = opened
    assert calibration is not None
    chosen = calibration.sample(settings.samples, settings.seed)
    return Inputs(program, chosen, evaluation.remembered_if_small() if evaluation else None)


def _program(model: object, data: object, held: list[Held | None], settings: PlanJob) -> Program:
    if isinstance(model, Program):
        return model
    if isinstance(model, str | Path):
        request = ModelRequest(str(model), settings.arch, settings.model_arg, settings.allow_pickle)
        loaded = load_model(request)
    else:
        loaded = adopt_object(model)
    size = held_size(held)
    natural = size if size is not None else natural_input_size(str(data))
    known = loaded.preprocessing
    if known is None and size is not None:
        known = Preprocessing(input_size=size, mean=(0.0,) * size[0], std=(1.0,) * size[0])
    preprocessing = make_preprocessing(settings, known, natural)
    if isinstance(loaded.model, nn.Module):
        return trace(loaded.model, preprocessing, loaded.source)
    return adopt(loaded.model, preprocessing, loaded.source)


def open_evaluation(eval_data: str | None, program: Program) -> Samples | None:
    """`--eval-data`, kept in memory where that is little.

    Raises:
        DataError: Images cannot be read.
    """
    if not eval_data:
        return None
    return open_samples(eval_data, program.preprocessing, option="--eval-data").remembered_if_small()


def open_calibration(report: PruneReport, program: Program, data: str | None = None) -> Samples:
    """The images that a run was calibrated on, in their order.

    Args:
        report: Of the pruning.
        program: For its preprocessing.
        data: Where they are now; None for where they were.

    Raises:
        DataError: They cannot be read, or are not what they were.
    """
    source = open_samples(data or report.calibration.source, program.preprocessing)
    if source.info.origin != report.calibration.origin:
        raise DataError(
            "the calibration images have changed since the pruning run",
            seen=data or report.calibration.source,
            fix="put them back, name where they are with --data, or prune again",
        )
    missing = set(report.calibration_items) - set(source.indices)
    if missing:
        raise DataError(
            "the data source leaves out images that the run was calibrated on",
            seen=f"{data or report.calibration.source}: {len(missing)} images are not in it",
            fix="name the source with the slice that the run had, or without one",
        )
    return source.select(report.calibration_items)


def load_program(settings: ModelSettings, data: str | None = None) -> Program:
    """MODEL -> program; the input size comes from the options, the architecture or the data, in this order.

    Raises:
        SourceError: The model cannot be loaded.
        GraphError: It cannot be traced.
        UsageError: Nothing tells the preprocessing.
    """
    request = ModelRequest(settings.model, settings.arch, settings.model_arg, settings.allow_pickle)
    loaded = load_model(request)
    preprocessing = make_preprocessing(settings, loaded.preprocessing, natural_input_size(data) if data else None)
    if isinstance(loaded.model, nn.Module):
        return trace(loaded.model, preprocessing, loaded.source)
    return adopt(loaded.model, preprocessing, loaded.source)


def make_preprocessing(
    settings: ModelSettings, known: Preprocessing | None, natural: tuple[int, int, int] | None
) -> Preprocessing:
    """How images become the model's input.

    Args:
        settings: What the user says; it comes first.
        known: What the architecture or the file says.
        natural: Size of the data's images, where they are not resized; it comes before the architecture's.

    Raises:
        UsageError: Nothing tells it, or mean and deviation do not fit the channels.
    """
    size = settings.input_size or natural or (known.input_size if known else None)
    mean, std = settings.mean or (known.mean if known else None), settings.std or (known.std if known else None)
    lacking = [n for n, v in (("--input-size", size), ("--mean", mean), ("--std", std)) if v is None]
    if size is None or mean is None or std is None:
        raise UsageError(
            "nothing says how images become the model's input",
            seen=f"not given: {', '.join(lacking)}",
            allowed="for example --input-size 3,224,224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        )
    for option, values in (("--mean", mean), ("--std", std)):
        if len(values) != size[0]:
            raise UsageError(
                f"{option} does not fit the input", seen=f"{len(values)} values", allowed=f"{size[0]} values"
            )
    base = known or Preprocessing(input_size=size, mean=mean, std=std)
    update = {
        "input_size": size,
        "mean": mean,
        "std": std,
        "interpolation": settings.interpolation or base.interpolation,
        "crop_pct": settings.crop_pct or base.crop_pct,
    }
    return base.model_copy(update=update)
