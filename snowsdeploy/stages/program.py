"""MODEL and what the user says of its inputs and outputs -> the program of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from snowsdeploy.data.memory import Names
from snowsdeploy.data.open import holds_inputs, natural_input_size, natural_inputs
from snowsdeploy.data.samples import Samples
from snowsdeploy.errors import GraphError, UsageError
from snowsdeploy.models.adopt import Wanted, adopt, image_input
from snowsdeploy.models.objects import adopt_object, name_of
from snowsdeploy.models.program import Program
from snowsdeploy.models.signature import ONE_INPUT, infos_of, parameters_of
from snowsdeploy.models.sizes import wanted_axes
from snowsdeploy.models.source import LoadedModel, ModelRequest, load_model
from snowsdeploy.models.trace import trace
from snowsdeploy.settings.model import ModelSettings, read_axis
from snowsdeploy.stages.file_inputs import file_inputs, require_own_ends
from snowsdeploy.stages.samples import hold_source, is_image, is_source, require_same
from snowsdeploy.values import InputInfo, Preprocessing

TRACED_WITH = 3  # items


def load_program(settings: ModelSettings, data: str | None = None) -> Program:
    """MODEL -> program; the input size comes from the options, the architecture or the data, in this order.

    Raises:
        SourceError: The model cannot be loaded.
        GraphError: It cannot be traced.
        UsageError: Nothing tells the preprocessing.
    """
    loaded = load(settings.model, settings)
    names = names_for(loaded, settings)
    held = hold_source(data, "--data", names, TRACED_WITH, 0)
    return traced(loaded, settings, names, held, data if held is None else None)


def load(model: object, settings: ModelSettings) -> LoadedModel:
    """A source, or what a Python program holds."""
    if is_source(model):
        return load_model(_request(settings, str(model)))
    _require_no_source_options(model, settings)
    return adopt_object(model)


def names_for(loaded: LoadedModel | Program, settings: ModelSettings) -> Names:
    """How the inputs are called: by the user, by the file, or by the model's forward."""
    if settings.inputs:
        given = settings.inputs
        return Names(tuple(i.name for i in given), len(given), raw=all(i.dtype == "uint8" for i in given))
    if isinstance(loaded, LoadedModel) and loaded.imported is not None:
        known = loaded.imported.inputs
        return Names(tuple(i.name for i in known), len(known))
    signature = loaded.signature
    if signature is not None:
        return Names(tuple(i.name for i in signature.inputs), len(signature.inputs))
    assert not isinstance(loaded, Program)
    parameters = parameters_of(loaded.model)
    return Names(parameters.names or (ONE_INPUT,), max(parameters.required, 1))


def traced(
    loaded: LoadedModel, settings: ModelSettings, names: Names, held: Samples | None, source: str | None
) -> Program:
    """The model as a program of the inputs that options and data say."""
    found = infos_of(held.rows(0, 1), names.all[0]) if held is not None else _arrays(source, names)
    if loaded.imported is not None:
        return _traced_file(loaded, settings, found, held, source)
    inputs = settings.inputs or None
    if inputs is None and found is not None and not is_image(found):
        inputs = found
    if inputs is not None and found is not None and {i.name for i in inputs} == {i.name for i in found}:
        require_same(found, inputs)
    preprocessing = None
    if inputs is None or is_image(inputs):
        preprocessing = preprocessing_of(loaded, settings, held, source, inputs)
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


def _traced_file(
    loaded: LoadedModel,
    settings: ModelSettings,
    found: tuple[InputInfo, ...] | None,
    held: Samples | None,
    source: str | None,
) -> Program:
    """An ONNX file's module as a program with the file's own inputs, outputs and axes."""
    imported = loaded.imported
    assert imported is not None
    assert isinstance(loaded.model, nn.Module)
    require_own_ends(settings)
    image = natural_input_size(source) if found is None and source is not None else None
    sizes = file_inputs(imported.inputs, settings, found, image)
    if found is not None and len(found) == len(sizes.inputs):
        one = len(found) == 1
        require_same([i.model_copy(update={"name": sizes.inputs[0].name}) if one else i for i in found], sizes.inputs)
    preprocessing = None
    if is_image(sizes.inputs) and (found is None or is_image(found)):
        preprocessing = preprocessing_of(loaded, settings, held, source, sizes.inputs)
    count = sizes.batch or TRACED_WITH
    example = held.rows(0, count) if held is not None and len(held) >= count and preprocessing is None else None
    wanted = Wanted(sizes.inputs, example, imported.outputs, (), sizes.batch, sizes.dynamic)
    try:
        return trace(loaded.model, preprocessing, loaded.source, wanted, imported.file)
    except GraphError:  # some operators take one size alone when they are traced, such as recurrent layers
        if not sizes.dynamic:
            raise
        axes = ", ".join(dict.fromkeys(axis.name for axis in sizes.dynamic))
        words = (
            f"the file leaves {axes} open, and it was pruned and compared at {', '.join(map(str, sizes.inputs))} alone"
        )
        remarked = loaded.source.model_copy(update={"remarks": (*loaded.source.remarks, words)})
        return trace(loaded.model, preprocessing, remarked, replace(wanted, dynamic=()), imported.file)


def _arrays(source: str | None, names: Names) -> tuple[InputInfo, ...] | None:
    return None if source is None else natural_inputs(source, names.all)


def preprocessing_of(
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
    as_they_are = (held is not None and source is None) or (source is not None and holds_inputs(source))
    if known is None and as_they_are and natural is not None and settings.mean is None and settings.std is None:
        zeros, ones = (0.0,) * natural[0], (1.0,) * natural[0]
        known = Preprocessing(input_size=natural, mean=zeros, std=ones, known=False)
    return make_preprocessing(settings, known, natural)


def _image_size(inputs: Sequence[InputInfo]) -> tuple[int, int, int] | None:
    if not is_image(inputs):
        return None
    channels, height, width = inputs[0].shape
    return channels, height, width


def _request(settings: ModelSettings, model: str) -> ModelRequest:
    return ModelRequest(
        model, settings.arch, settings.model_arg, settings.allow_pickle, settings.state_key, settings.strip_prefix
    )


def _require_no_source_options(model: object, settings: ModelSettings) -> None:
    names = ("arch", "model_arg", "allow_pickle", "state_key", "strip_prefix")
    given = [name for name in names if getattr(settings, name)]
    if given:
        raise UsageError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for a model that is loaded from a file or by "
            "its name",
            seen=f"beside {name_of(model)}",
            allowed="a path, timm:NAME or package.module:factory as the model",
            fix=f"leave {' and '.join(given)} out",
        )


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
            fix=f"add {' and '.join(lacking)} with the values of the training",
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
