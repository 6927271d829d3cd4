"""Names of initializers to the paths of parameters and buffers in a module."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

_OTHER = re.compile(r"[^0-9A-Za-z_.]+")
WEIGHT = ".weight"


def state_paths(names: Iterable[tuple[str, bool]], reserved: frozenset[str] = frozenset()) -> dict[str, str]:
    """A valid, unique path for every name; it depends on the names and their order alone.

    Args:
        names: Each tensor's name, and whether it is the weight of a product; the path of such a one ends in `.weight`.
        reserved: First parts that the module uses for something else.
    """
    leaves: set[str] = set()
    folders: set[str] = set()
    paths: dict[str, str] = {}
    for name, is_weight in names:
        path = _free(_wanted(name, is_weight=is_weight), leaves, folders, reserved)
        leaves.add(path)
        parts = path.split(".")
        folders.update(".".join(parts[:count]) for count in range(1, len(parts)))
        paths[name] = path
    return paths


def _wanted(name: str, *, is_weight: bool) -> str:
    """The name without what a module path cannot hold: `onnx::MatMul_7` becomes `onnx_MatMul_7`."""
    parts = [part for part in (part.strip("_") for part in _OTHER.sub("_", name).split(".")) if part]
    path = ".".join(parts) or "constant"
    return path if not is_weight or path.endswith(WEIGHT) else path + WEIGHT


def _free(path: str, leaves: set[str], folders: set[str], reserved: frozenset[str]) -> str:
    """The path, with numbers at parts that are taken by another tensor or by an attribute of every module."""
    parts = path.split(".")
    for at in range(len(parts)):
        is_last = at == len(parts) - 1
        is_ending = is_last and at > 0 and parts[at] == "weight"
        before = parts[:at]
        candidate, number = parts[at], 0
        while _is_taken(".".join([*before, candidate]), is_last, leaves, folders, reserved):
            if is_ending:  # the ending stays; the part before it is numbered instead
                return _free(
                    ".".join([*parts[: at - 1], f"{parts[at - 1]}_{number + 1}", "weight"]), leaves, folders, reserved
                )
            number += 1
            candidate = f"{parts[at]}_{number}"
        parts[at] = candidate
    return ".".join(parts)


def _is_taken(path: str, is_last: bool, leaves: set[str], folders: set[str], reserved: frozenset[str]) -> bool:
    part = path.rpartition(".")[2]
    if hasattr(nn.Module, part) or part in _INSTANCE or (part == path and part in reserved):
        return True
    return path in leaves or (is_last and path in folders)


_INSTANCE = frozenset(vars(nn.Module()))
