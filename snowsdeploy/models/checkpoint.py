"""Checkpoint file -> the state dicts that it holds, or a whole module."""

from __future__ import annotations

import _codecs
import argparse
import pickle
import re
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from snowsdeploy.errors import SourceError, first_line
from snowsdeploy.files import reading
from snowsdeploy.models.formats import FileFormat, truncated
from snowsdeploy.user_code import UserCodeError, contained, line_of_user_code

# Where trainers put the weights, the first that is there counts: those of timm.models._helpers.load_state_dict in its
# order (averaged weights first), and those of other trainers beside them.
STATE_KEYS = (
    "state_dict_ema", "model_ema", "ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "net"
)  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.")
# Beside weights and no part of a model: AveragedModel's count, thop's counts, the masks of NVIDIA's ASP.
_NOT_WEIGHTS = re.compile(r"(^|\.)(n_averaged|total_ops|total_params)$|__\w+_mma_(mask|pruned_p)$")
SHOWN = 4


@dataclass(frozen=True)
class StateDict:
    """One of the state dicts of a file.

    Attributes:
        key: Where it is, such as `model_state_dict` or `model_ema.module`; empty for the file itself.
        tensors: By name, as they are in the file.
    """

    key: str
    tensors: dict[str, Tensor]

    @property
    def is_usual(self) -> bool:
        """Whether it is where trainers put the weights."""
        return self.key.partition(".")[0] in STATE_KEYS


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        state_dicts: Those where trainers put weights come first; empty when `module` is given.
        arch: The architecture that a training dict names.
        module: A whole pickled module (only with `allow_pickle`).
    """

    state_dicts: tuple[StateDict, ...]
    arch: str | None
    module: nn.Module | None = None

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """The first one, without the prefixes that wrappers add to every key."""
        return without_wrappers(self.state_dicts[0].tensors) if self.state_dicts else {}


def read_checkpoint(path: Path, kind: FileFormat, *, allow_pickle: bool) -> Checkpoint:
    """Read tensors; a pickle runs code only when `allow_pickle` is set.

    Raises:
        SourceError: The file is damaged, needs a pickle that is not allowed, or holds no tensors.
    """
    if kind is FileFormat.SAFETENSORS:
        with reading(lambda error: truncated(path, error)):
            return Checkpoint((StateDict("", _weights(safetensors.torch.load_file(path))),), None)
    content = _load_pickle(path, allow_pickle=allow_pickle)
    if isinstance(content, nn.Module):
        return Checkpoint((), None, content)
    if not isinstance(content, Mapping):
        raise _not_a_checkpoint(path, f"a {type(content).__name__}")
    found = tuple(sorted(_state_dicts(content), key=_rank))
    module = next((content[k] for k in STATE_KEYS if isinstance(content.get(k), nn.Module)), None)
    arch = content.get("arch")
    if module is not None and not any(state.is_usual for state in found):
        return Checkpoint((), None, module)
    if not found:
        raise _not_a_checkpoint(path, f"a dict with keys {', '.join(map(_key_text, list(content)[:SHOWN]))}")
    return Checkpoint(found, arch if isinstance(arch, str) else None)


def _state_dicts(content: Mapping[Any, Any], key: str = "", depth: int = 2) -> Iterator[StateDict]:
    """The mapping itself and those inside it, where they hold tensors."""
    tensors = _weights(content)
    if tensors:
        yield StateDict(key, tensors)
    for name, value in content.items():
        if depth and isinstance(name, str) and isinstance(value, Mapping):
            yield from _state_dicts(value, f"{key}.{name}" if key else name, depth - 1)


def _rank(state: StateDict) -> int:
    root = state.key.partition(".")[0]
    return STATE_KEYS.index(root) if root in STATE_KEYS else len(STATE_KEYS) + bool(state.key)


def _not_a_checkpoint(path: Path, seen: str) -> SourceError:
    return SourceError(
        "the file holds no state dict",
        seen=f"{path}: {seen}",
        allowed=f"tensors by name, or a dict with one of {', '.join(STATE_KEYS)}",
        fix="save it by torch.save(model.state_dict(), path)",
    )


# Data that runs nothing: timm allows the first too; metrics beside weights are often numpy's scalars.
_SCALAR = np.float64(0).__reduce__()[0]
_PLAIN_DATA: list[Any] = [
    argparse.Namespace,
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # before numpy 2
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
    _codecs.encode,  # how older pickles write bytes
]
_PLAIN_NAMES = {
    *("argparse.Namespace", "numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar", "numpy.dtype"),
    "_codecs.encode",
}


def _load_pickle(path: Path, *, allow_pickle: bool) -> Any:  # noqa: ANN401 - a checkpoint holds anything
    try:
        if allow_pickle:
            return _run_pickle(path)
        with torch.serialization.safe_globals(_PLAIN_DATA):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _blocked(path, error) from error
    except (ImportError, AttributeError) as error:
        raise SourceError(
            "the pickle needs Python code that is not here",
            seen=f"{path}: {first_line(error)}",
            allowed="a pickle whose classes can be imported here, or a plain state dict",
            fix="run from the folder that holds the code, with the versions it was saved with",
        ) from error
    except SourceError:
        raise
    except Exception as error:  # as in `reading`
        raise truncated(path, error) from error


def _run_pickle(path: Path) -> Any:  # noqa: ANN401 - as above
    """Load a pickle with the classes that it names, which are often the user's; what no code raised is raised again."""
    try:
        with contained("code that the pickle runs"), _paths_of_windows():
            return torch.load(path, map_location="cpu", weights_only=False)
    except UserCodeError as error:
        cause = error.__cause__
        absent = isinstance(cause, pickle.UnpicklingError | ImportError | AttributeError)
        if isinstance(cause, Exception) and (absent or not line_of_user_code(cause)):
            raise cause from None
        raise SourceError(
            error.what,
            seen=f"{path}: {error.seen}",
            allowed="a pickle that loads without an error, or a plain state dict",
            fix="save model.state_dict() where the file was made, and pass that",
        ) from cause


@contextmanager
def _paths_of_windows() -> Iterator[None]:
    """Settings beside the weights often hold a path; elsewhere that of Windows cannot be made, only named."""
    modules = [sys.modules[name] for name in ("pathlib", "pathlib._local") if name in sys.modules]
    before = [vars(module).get("WindowsPath") for module in modules]
    for module in modules:
        vars(module)["WindowsPath"] = PureWindowsPath
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            vars(module)["WindowsPath"] = own


def _blocked(path: Path, error: Exception) -> SourceError:
    """A pickle that names code, or a damaged file: the unpickler raises the same type for both."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        # It reports against torch's own list, which the context above has ended.
        names = sorted(set(names) - _PLAIN_NAMES)
    except Exception:
        names = []  # it reads zip archives only; the message of the error names the first one
    names = names or re.findall(r"GLOBAL ([\w.]+)", str(error))
    if not names and "Can only" not in str(error):
        return truncated(path, pickle.UnpicklingError(_reason(error)))
    return SourceError(
        "the file is a pickle that would run code",
        seen=f"{path}: {some(names) or _reason(error)}",
        allowed="a file of tensors (weights_only)",
        fix="save model.state_dict() instead; or, only if you trust whoever made the file, add --allow-pickle",
    )


def _reason(error: Exception) -> str:
    """The line of torch's long message that tells what happened."""
    advice = ("Weights only load failed", "Please file an issue", "Check the documentation")
    return first_line("\n".join(line for line in str(error).splitlines() if not line.strip().startswith(advice)))


def _weights(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a mapping that may be a model's."""
    named = ((_key_text(key), value) for key, value in state.items() if isinstance(value, Tensor))
    return {name: value for name, value in named if not _NOT_WEIGHTS.search(name)}


def _key_text(key: object) -> str:
    """A key as text that can be printed; only the start of one that is no text, which may be of any size."""
    text = key if isinstance(key, str) else reprlib.repr(key)
    return text.encode(errors="backslashreplace").decode()


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers add to every key."""
    tensors, stripped = dict(tensors), True
    while stripped:
        stripped = False
        for prefix in WRAPPERS:
            if tensors and all(k.startswith(prefix) for k in tensors):
                tensors, stripped = {k.removeprefix(prefix): v for k, v in tensors.items()}, True
    return tensors


def some(items: Sequence[str]) -> str:
    """The first of many."""
    more = f", +{len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
