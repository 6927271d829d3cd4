"""Strings, paths and Python objects -> the program and the samples of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from snowsdeploy.data.memory import IN_MEMORY, hold
from snowsdeploy.data.open import natural_input_size, open_samples
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import DataError, UsageError
from snowsdeploy.models.objects import adopt_object, name_of
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import scored_classes
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import adopt, trace
from snowsdeploy.settings.jobs import PlanJob
from snowsdeploy.settings.model import ModelSettings
from snowsdeploy.tasks.classify import remarks_on_folders, require_labels
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
    return hold_inputs(settings.model, settings.data, eval_data, settings)


def hold_inputs(model: object, data: object, eval_data: object, settings: PlanJob) -> Inputs:
    """What a Python program holds; strings and paths as the command line takes them.

    Inputs that are tensors are taken as they are.

    Args:
        model: A source, a module, a program of torch.export, or a `Program`.
        data: A source, a tensor, `(tensor, labels)`, a torch `Dataset`, an iterable of batches, or `Samples`.
        eval_data: The same; None for no evaluation.
        settings: Of the job; what they say of model and data is not read where those are objects.

    Raises:
        SourceError: The model cannot be used.
        GraphError: It cannot be traced.
        DataError: Images cannot be read, or do not have the model's input size.
        UsageError: Nothing tells the preprocessing, or an option does not fit the model.
    """
    count, seed = settings.samples, settings.seed
    calibration = None if is_source(data) else hold(data, option="data", at_most=count, seed=seed)
    evaluation = None if eval_data is None or is_source(eval_data) else hold(eval_data, option="eval_data")
    natural = next((input_size_of(held) for held in (calibration, evaluation) if held is not None), None)
    tensors_only = calibration is not None and (eval_data is None or evaluation is not None)
    program = _program(model, natural or natural_input_size(str(data)), settings, as_they_are=tensors_only)
    for option, held in (("data", calibration), ("eval_data", evaluation)):
        if held is not None:
            require_input_size(held, program.preprocessing, option)
    if calibration is None:
        calibration = open_samples(str(data), program.preprocessing)
    if evaluation is None and eval_data is not None:
        evaluation = open_evaluation(str(eval_data), program)
    return Inputs(program, calibration.sample(count, seed), evaluation)


def load_program(settings: ModelSettings, data: str | None = None) -> Program:
    """MODEL -> program; the input size comes from the options, the architecture or the data, in this order.

    Raises:
        SourceError: The model cannot be loaded.
        GraphError: It cannot be traced.
        UsageError: Nothing tells the preprocessing.
    """
    return _program(settings.model, natural_input_size(data) if data else None, settings, as_they_are=False)


def _program(
    model: object, natural: tuple[int, int, int] | None, settings: ModelSettings, *, as_they_are: bool
) -> Program:
    """Any model; inputs `as_they_are` need no preprocessing where nothing tells it."""
    if not is_source(model):
        _require_no_source_options(model, settings)
    if isinstance(model, Program):
        return model
    loaded = load_model(_request(settings, str(model))) if is_source(model) else adopt_object(model)
    known = loaded.preprocessing
    if known is None and as_they_are and natural is not None:
        zeros, ones = (0.0,) * natural[0], (1.0,) * natural[0]
        known = Preprocessing(input_size=natural, mean=zeros, std=ones, known=False)
    preprocessing = make_preprocessing(settings, known, natural)
    if isinstance(loaded.model, nn.Module):
        return trace(loaded.model, preprocessing, loaded.source)
    return adopt(loaded.model, preprocessing, loaded.source)


def _request(settings: ModelSettings, model: str) -> ModelRequest:
    return ModelRequest(
        model, settings.arch, settings.model_arg, settings.allow_pickle, settings.state_key, settings.strip_prefix
    )


def _require_no_source_options(model: object, settings: ModelSettings) -> None:
    given = [
        name for name in ("arch", "model_arg", "allow_pickle", "state_key", "strip_prefix") if getattr(settings, name)
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)} is for a model that is loaded from a file or by its name",
            seen=f"beside {name_of(model)}",
            fix="leave it out",
        )


def is_source(value: object) -> bool:
    """Whether a value names something on disk or a loader."""
    return isinstance(value, str | Path)


def input_size_of(samples: Samples) -> tuple[int, int, int]:
    """Channels, height, width of their images."""
    _, channels, height, width = samples.rows(0, 1).shape
    return channels, height, width


def require_input_size(samples: Samples, preprocessing: Preprocessing, option: str) -> None:
    """Refuse images that the model does not take.

    Raises:
        DataError: They have another size.
    """
    size = input_size_of(samples)
    if size != preprocessing.input_size:
        raise DataError(
            f"the images of {option} do not have the model's input size",
            seen="x".join(map(str, size)),
            allowed="x".join(map(str, preprocessing.input_size)),
        )


def open_evaluation(eval_data: str | None, program: Program) -> Samples | None:
    """`--eval-data`, kept in memory where that is little.

    Raises:
        DataError: Images cannot be read, or have labels that the model has no score for.
    """
    if not eval_data:
        return None
    samples = open_samples(eval_data, program.preprocessing, option="--eval-data").remembered_if_small()
    classes = scored_classes(program)
    if samples.labels is not None and classes is not None:
        require_labels(samples.labels, classes, samples.classes)
    return samples


def remarks(evaluation: Samples | None, program: Program) -> tuple[str, ...]:
    """What may be wrong with the labels of evaluation images; known before anything is solved."""
    return () if evaluation is None else remarks_on_folders(evaluation.classes, scored_classes(program))


def open_calibration(report: PruneReport, program: Program, data: object = None, *, was: str | None = None) -> Samples:
    """The images that a run was calibrated on, in their order.

    Args:
        report: Of the pruning.
        program: For its preprocessing.
        data: Where they are now, or the images themselves; None for where they were.
        was: Where they were by their absolute path, if the run says so.

    Raises:
        DataError: They cannot be read, or are not what they were.
    """
    was, count = was or report.calibration.source, len(report.calibration_items)
    if data is None and was.endswith(IN_MEMORY):
        raise DataError(
            "the calibration images were in memory", seen=was, fix="give them again: data= in Python, or --data"
        )
    if data is None:
        try:
            source = open_samples(was, program.preprocessing)
        except DataError as error:
            raise DataError(
                "the run's calibration images cannot be read",
                seen=f"{was}: {error.what}",
                fix="name where they are now with --data",
            ) from error
    elif is_source(data):
        source = open_samples(str(data), program.preprocessing)
    else:
        source = hold(data, option="data", at_most=count, seed=report.seed)
    if source.info.origin != report.calibration.origin:
        raise DataError(
            "the calibration images are not those of the pruning run",
            seen=source.info.source,
            fix="put them back, name where they are with --data, or prune again",
        )
    missing = set(report.calibration_items) - set(source.indices)
    if missing:
        raise DataError(
            "the data source leaves out images that the run was calibrated on",
            seen=f"{source.info.source}: {len(missing)} images are not in it",
            fix="name the source with the slice that the run had, or without one",
        )
    return source.select(report.calibration_items)


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
                f"{option} does not fit the input",
                seen=f"{len(values)} {'value' if len(values) == 1 else 'values'} for {'x'.join(map(str, size))}",
                allowed=f"{size[0]}, one for each channel",
                fix="change it, or give --input-size as C,H,W",
            )
    base = known or Preprocessing(input_size=size, mean=mean, std=std)
    update = {
        "input_size": size,
        "mean": mean,
        "std": std,
        "interpolation": settings.interpolation or base.interpolation,
        "crop_pct": settings.crop_pct or base.crop_pct,
        "known": base.known or (settings.mean is not None and settings.std is not None),
    }
    return base.model_copy(update=update)
