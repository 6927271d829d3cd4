"""Strings, paths and Python objects -> the program and the samples of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from snowsdeploy.data.factory import call_data_factory, is_factory
from snowsdeploy.data.memory import IN_MEMORY, Names, hold
from snowsdeploy.data.open import natural_input_size, natural_inputs, open_samples
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import DataError, UsageError
from snowsdeploy.models.objects import adopt_object, name_of
from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import scored_classes
from snowsdeploy.models.signature import ONE_INPUT, infos_of, parameters_of
from snowsdeploy.models.sizes import wanted_axes
from snowsdeploy.models.source import LoadedModel, ModelRequest, load_model
from snowsdeploy.models.trace import Wanted, adopt, image_input, trace
from snowsdeploy.settings.jobs import PlanJob
from snowsdeploy.settings.model import ModelSettings, read_axis
from snowsdeploy.tasks.classify import remarks_on_folders, require_labels
from snowsdeploy.values import InputInfo, Preprocessing, PruneReport

TRACED_WITH = 3  # items


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
    loaded = model if isinstance(model, Program) else _loaded(model, settings)
    names = _names(loaded, settings)
    calibration = _hold(data, "--data" if is_source(data) else "data", names, count, seed)
    evaluation = _hold(eval_data, "--eval-data" if is_source(eval_data) else "eval_data", names, None, seed)
    held = next((samples for samples in (calibration, evaluation) if samples is not None), None)
    source = str(data) if calibration is None else str(eval_data) if evaluation is None and eval_data else None
    program = loaded if isinstance(loaded, Program) else _traced(loaded, settings, names, held, source)
    _require_real(program)
    for option, samples in (("data", calibration), ("eval_data", evaluation)):
        if samples is not None:
            require_fit(samples, program, option)
    if calibration is None:
        calibration = open_samples(str(data), program.preprocessing, program.inputs)
    if evaluation is None and eval_data is not None:
        evaluation = open_evaluation(str(eval_data), program)
    elif evaluation is not None:
        evaluation = in_batches(evaluation, program, "--eval-data")
    return Inputs(program, in_batches(calibration.sample(count, seed), program, "--data"), evaluation)


def _require_real(program: Program) -> None:
    """Refuse a model of whole numbers where images are made into real ones.

    Raises:
        UsageError: It takes them, and nothing says that the data are as it wants them.
    """
    info = program.inputs[0]
    if program.preprocessing is not None and not info.dtype.startswith("float"):
        raise UsageError(
            "the model takes whole numbers, and images become real ones",
            seen=str(info),
            fix=f"put the values themselves into an .npz file as {info.name}, and leave out --mean and --std; "
            f"the input is --input {info.name}={','.join(map(str, info.shape))}:{info.dtype}",
        )


def load_program(settings: ModelSettings, data: str | None = None) -> Program:
    """MODEL -> program; the input size comes from the options, the architecture or the data, in this order.

    Raises:
        SourceError: The model cannot be loaded.
        GraphError: It cannot be traced.
        UsageError: Nothing tells the preprocessing.
    """
    loaded = _loaded(settings.model, settings)
    names = _names(loaded, settings)
    held = _hold(data, "--data", names, TRACED_WITH, 0)
    return _traced(loaded, settings, names, held, data if held is None else None)


def _loaded(model: object, settings: ModelSettings) -> LoadedModel:
    if is_source(model):
        return load_model(_request(settings, str(model)))
    _require_no_source_options(model, settings)
    return adopt_object(model)


def _names(loaded: LoadedModel | Program, settings: ModelSettings) -> Names:
    """How the inputs are called: by the user, by the file, or by the model's forward."""
    if settings.inputs:
        given = settings.inputs
        return Names(tuple(i.name for i in given), len(given), raw=all(i.dtype == "uint8" for i in given))
    signature = loaded.signature
    if signature is not None:
        return Names(tuple(i.name for i in signature.inputs), len(signature.inputs))
    assert not isinstance(loaded, Program)
    known = parameters_of(loaded.model)
    return Names(known.names or (ONE_INPUT,), max(known.required, 1))


def _hold(data: object, option: str, names: Names, at_most: int | None, seed: int) -> Samples | None:
    """What is in memory, or what the user's code makes; None for a source that needs the program first."""
    if data is None:
        return None
    if not is_source(data):
        return hold(data, option=option, names=names, at_most=at_most, seed=seed)
    if not is_factory(str(data)):
        return None
    made = hold(call_data_factory(str(data), option), option=option, names=names, at_most=at_most, seed=seed)
    return replace(made, info=made.info.model_copy(update={"source": str(data)}))


def _traced(
    loaded: LoadedModel, settings: ModelSettings, names: Names, held: Samples | None, source: str | None
) -> Program:
    """The model as a program of the inputs that options and data say."""
    inputs = settings.inputs or None
    found = infos_of(held.rows(0, 1), names.all[0]) if held is not None else _arrays(source, names)
    if inputs is None and found is not None and not _is_image(found):
        inputs = found
    if inputs is not None and found is not None and {i.name for i in inputs} == {i.name for i in found}:
        require_same(found, inputs)
    preprocessing = None
    if inputs is None or _is_image(inputs):
        preprocessing = _preprocessing(loaded, settings, held, source, inputs)
    count = settings.static_batch or TRACED_WITH
    example = None if held is None or len(held) < count else held.rows(0, count)
    if preprocessing is not None:
        example = None  # random images, whatever the data: the same program for the same size
    wanted = Wanted(inputs, example, settings.output_names, settings.outputs, settings.static_batch)
    if settings.dynamic:
        sized = inputs or image_input(preprocessing)
        wanted = replace(wanted, dynamic=wanted_axes([read_axis(text) for text in settings.dynamic], sized))
    if loaded.signature is not None and not settings.output_names:
        wanted = replace(wanted, output_names=loaded.signature.outputs)
    if isinstance(loaded.model, nn.Module):
        return trace(loaded.model, preprocessing, loaded.source, wanted)
    return adopt(loaded.model, preprocessing, loaded.source, wanted)


def _arrays(source: str | None, names: Names) -> tuple[InputInfo, ...] | None:
    return None if source is None else natural_inputs(source, names.all)


def _is_image(inputs: Sequence[InputInfo]) -> bool:
    """Whether it is one image that a preprocessing can make."""
    return len(inputs) == 1 and len(inputs[0].shape) == 3 and inputs[0].dtype == "float32"


def _preprocessing(
    loaded: LoadedModel,
    settings: ModelSettings,
    held: Samples | None,
    source: str | None,
    inputs: Sequence[InputInfo] | None,
) -> Preprocessing:
    """Of the model's one image."""
    natural = _image_size(inputs) if inputs else None
    if natural is None and held is not None:
        natural = _image_size(infos_of(held.rows(0, 1)))
    if natural is None and source is not None:
        natural = natural_input_size(source)
    known = loaded.preprocessing
    if known is None and held is not None and source is None and natural is not None:
        zeros, ones = (0.0,) * natural[0], (1.0,) * natural[0]
        known = Preprocessing(input_size=natural, mean=zeros, std=ones, known=False)
    return make_preprocessing(settings, known, natural)


def _image_size(inputs: Sequence[InputInfo]) -> tuple[int, int, int] | None:
    if not _is_image(inputs):
        return None
    channels, height, width = inputs[0].shape
    return channels, height, width


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


def require_fit(samples: Samples, program: Program, option: str) -> None:
    """Refuse what the model does not take.

    Raises:
        DataError: The inputs have other names, sizes or types.
    """
    require_same(infos_of(samples.rows(0, 1), program.inputs[0].name), program.inputs, option)


def require_same(found: Sequence[InputInfo], inputs: Sequence[InputInfo], option: str = "the data") -> None:
    """Refuse inputs that are not those of the model.

    Raises:
        DataError: They have other names, sizes or types.
    """
    if {(i.name, i.shape, i.dtype) for i in found} == {(i.name, i.shape, i.dtype) for i in inputs}:
        return
    images = _is_image(found) and _is_image(inputs)
    raise DataError(
        f"the images of {option} do not have the model's input size" if images else f"{option} does not fit the model",
        seen="x".join(map(str, found[0].shape)) if images else ", ".join(map(str, found)),
        allowed="x".join(map(str, inputs[0].shape)) if images else ", ".join(map(str, inputs)),
        fix=None if images else "name sizes and types with --input NAME=SHAPE:TYPE",
    )


def in_batches(samples: Samples, program: Program, option: str) -> Samples:
    """Whole batches of the size that a program takes, where that is fixed; what is left over is left out.

    Raises:
        DataError: There is not one batch.
    """
    size = program.signature.batch
    if size is None:
        return samples
    if len(samples) < size:
        raise DataError(
            f"{option} does not fill one batch of the model", seen=f"{len(samples)} items", allowed=f"{size} or more"
        )
    return samples.in_batches_of(size)


def open_evaluation(eval_data: str | None, program: Program) -> Samples | None:
    """`--eval-data`, kept in memory where that is little.

    Raises:
        DataError: Images cannot be read, or have labels that the model has no score for.
    """
    if not eval_data:
        return None
    made = _hold(eval_data, "--eval-data", _names_of(program), None, 0)
    if made is not None:
        require_fit(made, program, "--eval-data")
    samples = made or open_samples(eval_data, program.preprocessing, program.inputs, option="--eval-data")
    samples = in_batches(samples.remembered_if_small(), program, "--eval-data")
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
            source = _reopened(was, program, count, report.seed)
        except DataError as error:
            raise DataError(
                "the run's calibration images cannot be read",
                seen=f"{was}: {error.what}",
                fix="name where they are now with --data",
            ) from error
    elif is_source(data):
        source = _reopened(str(data), program, count, report.seed)
    else:
        source = hold(data, option="data", names=_names_of(program), at_most=count, seed=report.seed)
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
    return in_batches(source.select(report.calibration_items), program, "--data")


def _reopened(text: str, program: Program, count: int, seed: int) -> Samples:
    held = _hold(text, "--data", _names_of(program), count, seed)
    return held or open_samples(text, program.preprocessing, program.inputs)


def _names_of(program: Program) -> Names:
    return Names(tuple(i.name for i in program.inputs), len(program.inputs))


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
