"""MODEL and its options -> program."""

from __future__ import annotations

from torch import nn

from snowsdeploy.artifacts import Preprocessing
from snowsdeploy.config import ModelSettings
from snowsdeploy.data.open import natural_input_size
from snowsdeploy.errors import UsageError
from snowsdeploy.models.program import Program
from snowsdeploy.models.source import ModelRequest, load_model
from snowsdeploy.models.trace import adopt, trace


def load_program(settings: ModelSettings, data: str | None = None) -> Program:
    """MODEL -> program; the input size comes from the options, the architecture or the data, in this order.

    Raises:
        SourceError: The model cannot be loaded.
        GraphError: It cannot be traced.
        UsageError: Nothing tells the preprocessing.
    """
    request = ModelRequest(settings.model, settings.arch, settings.model_arg, settings.allow_pickle)
    loaded = load_model(request)
    preprocessing = _preprocessing(settings, loaded.preprocessing, data)
    if isinstance(loaded.model, nn.Module):
        return trace(loaded.model, preprocessing, loaded.source)
    return adopt(loaded.model, preprocessing, loaded.source)


def _preprocessing(settings: ModelSettings, known: Preprocessing | None, data: str | None) -> Preprocessing:
    natural = natural_input_size(data) if data else None
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
