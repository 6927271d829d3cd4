"""Checkpoint file -> state dict, and a state dict into a module."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from snowsdeploy.errors import SourceError
from snowsdeploy.models.factory import current_directory_first
from snowsdeploy.models.formats import FileFormat, first_line, truncated

# timm.models._helpers.load_state_dict looks for these, in this order.
STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        state_dict: Tensors by name, prefixes of wrappers removed; empty when `module` is given.
        arch: The architecture that a training dict names.
        module: A whole pickled module (only with `allow_pickle`).
    """

    state_dict: dict[str, Tensor]
    arch: str | None
    module: nn.Module | None = None


def read_checkpoint(path: Path, kind: FileFormat, *, allow_pickle: bool) -> Checkpoint:
    """Read tensors; a pickle runs code only when `allow_pickle` is set.

    Raises:
        SourceError: The file is damaged, needs a pickle that is not allowed, or holds no tensors.
    """
    if kind is FileFormat.SAFETENSORS:
        try:
            return Checkpoint(_clean(safetensors.torch.load_file(path)), None)
        except SafetensorError as error:
            raise truncated(path, error) from error
    content = _load_pickle(path, allow_pickle=allow_pickle)
    if isinstance(content, nn.Module):
        return Checkpoint({}, None, content)
    if not isinstance(content, Mapping):
        raise _not_a_checkpoint(path, f"a {type(content).__name__}")
    state = next((content[k] for k in STATE_KEYS if isinstance(content.get(k), Mapping)), None)
    module = next((content[k] for k in STATE_KEYS if isinstance(content.get(k), nn.Module)), None)
    arch = content.get("arch")
    if state is None and module is not None:
        return Checkpoint({}, None, module)
    tensors = _clean(content if state is None else state)
    if not tensors:
        raise _not_a_checkpoint(path, f"a dict with keys {', '.join(map(str, list(content)[:SHOWN]))}")
    return Checkpoint(tensors, arch if isinstance(arch, str) else None)


def _not_a_checkpoint(path: Path, seen: str) -> SourceError:
    return SourceError(
        "the file holds no state dict",
        seen=f"{path}: {seen}",
        allowed=f"tensors by name, or a dict with one of {', '.join(STATE_KEYS)}",
        fix="save it by torch.save(model.state_dict(), path)",
    )


def _load_pickle(path: Path, *, allow_pickle: bool) -> Any:  # noqa: ANN401 - a checkpoint holds anything
    try:
        if allow_pickle:
            with current_directory_first():  # the classes of a pickled module are often the user's own
                return torch.load(path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain data; timm allows it too
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _blocked(path, error) from error
    except (ImportError, AttributeError) as error:
        raise SourceError(
            "the pickle needs Python code that is not here",
            seen=f"{path}: {first_line(error)}",
            fix="run from the folder that holds the code, with the versions it was saved with",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise truncated(path, error) from error


def _blocked(path: Path, error: Exception) -> SourceError:
    """A pickle that names code, or a damaged file: the unpickler raises the same type for both."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        # It reports against torch's own list, which the context above has ended.
        names = sorted(set(names) - {"argparse.Namespace"})
    except Exception:
        names = []  # it reads zip archives only; the message of the error names the first one
    names = names or re.findall(r"GLOBAL ([\w.]+)", str(error))
    if not names and "Can only" not in str(error):
        return truncated(path, pickle.UnpicklingError(_reason(error)))
    return SourceError(
        "the file is a pickle that would run code",
        seen=f"{path}: {_some(names) or _reason(error)}",
        allowed="a file of tensors (weights_only)",
        fix="save model.state_dict() instead; or, only if you trust whoever made the file, add --allow-pickle",
    )


def _reason(error: Exception) -> str:
    """The line of torch's long message that tells what happened."""
    advice = ("Weights only load failed", "Please file an issue", "Check the documentation")
    return first_line("\n".join(line for line in str(error).splitlines() if not line.strip().startswith(advice)))


def _clean(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Keep tensors; remove the prefixes that wrappers add to every key."""
    # torch's AveragedModel counts its updates beside the weights.
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor) and k != "n_averaged"}
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            if tensors and all(k.startswith(prefix) for k in tensors):
                tensors, stripped = {k.removeprefix(prefix): v for k, v in tensors.items()}, True
    return tensors


def fit_state_dict(module: nn.Module, state: Mapping[str, Tensor], arch: str) -> None:
    """Load weights into a module; every key must match.

    Raises:
        SourceError: Keys are missing or unexpected, or shapes differ; a few of each are named.
    """
    own = module.state_dict()
    # Old checkpoints lack this counter, which evaluation does not use.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(v.shape)}, not {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and v.shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        rows = (("missing", missing), ("unexpected", unexpected), ("shape in file", shapes))
        raise SourceError(
            f"the weights do not fit the architecture {arch}",
            seen="; ".join(f"{len(items)} {label}: {_some(items)}" for label, items in rows if items),
            allowed=f"the {len(own)} keys of {arch}",
            fix="check --arch and --model-arg (for example --model-arg num_classes=10)",
        )
    module.load_state_dict(dict(state), strict=False)


def _some(items: Sequence[str]) -> str:
    more = f", +{len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
