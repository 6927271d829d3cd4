"""timm: models by name, and the preprocessing they declare."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from snowsdeploy.errors import SourceError, cause
from snowsdeploy.values import Preprocessing

_HUB = ("hf-hub:", "hf_hub:")


def create_timm_model(name: str, arguments: Mapping[str, Any], *, pretrained: bool, option: str) -> nn.Module:
    """Create a model by its timm name.

    Args:
        name: `architecture`, `architecture.tag`, or `hf-hub:owner/name` when pretrained.
        arguments: Keyword arguments of `timm.create_model`.
        pretrained: Download weights: the only use of the network by a model source.
        option: Where the name came from, for messages.

    Raises:
        SourceError: No such model, wrong arguments, or the download failed.
    """
    import timm  # noqa: PLC0415 - seconds of imports that a factory model does not need

    architecture = name.partition(".")[0]
    if not (pretrained and name.startswith(_HUB)) and not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), 3)
        raise SourceError(
            f"{option} names no timm model",
            seen=name,
            allowed="a timm model name, or module:factory",
            fix=f"did you mean {', '.join(close)}?" if close else "see timm.list_models()",
        )
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm and the hub raise many types
        raise SourceError(
            f"timm cannot create {name}",
            seen=cause(error),
            allowed="a name and arguments that timm.create_model takes",
            fix="check the network and the name's tag, or download the checkpoint and pass its path with --arch"
            if pretrained
            else "check --model-arg",
        ) from error
    return module


def timm_preprocessing(module: nn.Module, arguments: Mapping[str, Any]) -> Preprocessing | None:
    """The preprocessing that a timm model declares, None for other modules.

    Args:
        module: Any module.
        arguments: What it was created with: timm's own configuration does not follow `in_chans` and `img_size`.
    """
    if not hasattr(module, "pretrained_cfg"):
        return None
    from timm.data import resolve_model_data_config  # noqa: PLC0415 - as above

    config = resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    size = arguments.get("img_size") or (height, width)
    height, width = (size, size) if isinstance(size, int) else size
    config["input_size"] = (arguments.get("in_chans") or channels, height, width)
    keys = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    return Preprocessing(**{key: config[key] for key in keys})
