"""What a `.pt2` file may hold so that loading it runs no code of its own, and comes to an end.

`torch.export.load` (read in torch 2.15) is not safe by itself: it falls back to a full unpickler for sample inputs and
weights, unpickles opaque constants, loads compiled AOTInductor libraries, evaluates symbolic sizes with `sympy.sympify`
and guards with `exec`, and takes any attribute below `torch` as the function of a node. Ordinary programs need none of
that, so everything in a file has to be on a short list: tensors as raw bytes, sample inputs that load with
`weights_only`, nodes that call registered operators, names that are names, sizes that are arithmetic. Anything else
needs `--allow-pickle`.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.export.pt2_archive import PT2ArchiveReader

from snowsdeploy.models.plain_expression import is_plain_expression

_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|extra/[\w.-]+|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt"
)
_NAMES = re.compile(r"[\w.]*")
_TEXT = re.compile(r"[\w .,+>-]*")  # string arguments of operators, versions
_NAMESPACES = ("aten", "prims", "higher_order", "torchvision")
_ARITHMETIC = {
    *("abs", "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lshift", "lt", "mod", "mul", "ne", "neg"),
    *("not_", "or_", "pos", "pow", "rshift", "sub", "truediv", "xor"),
}
# Kept as text or JSON by the loader, never evaluated.
_NOTES = {"stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node", "custom"}


def find_code(path: Path) -> str | None:
    """The first thing in a `.pt2` file that loading could run, in words; None for an ordinary program.

    Args:
        path: A `.pt2` archive.

    Raises:
        Exception: Of many types, when the archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        if "version" in archive.namelist():  # torch.export.load takes this as the format before torch 2.8
            return "members of an old format that is pickled"
    # The reader that torch.export.load uses: another one could see other members in a forged archive.
    reader = PT2ArchiveReader(str(path))
    for member in reader.get_file_names():
        if not _MEMBERS.fullmatch(member):
            return f"the member {member}"
        if member.endswith(".json") and not member.startswith("extra/"):
            found = next(_findings(json.loads(reader.read_bytes(member)), ""), None)
            if found is not None:
                return f"{found} in {member}"
    samples = reader.read_bytes("data/sample_inputs/model.pt")
    return "sample inputs that are pickled objects" if samples and not _only_tensors(samples) else None


def _only_tensors(samples: bytes) -> bool:
    try:
        torch.load(io.BytesIO(samples), weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True


def _findings(value: object, key: str) -> Iterator[str]:
    """Everything below a JSON value that is not on the list; `key` is the field that holds the value."""
    if isinstance(value, dict):
        if value.get("use_pickle"):
            yield "pickled tensors"
        if "__enum__" in value:  # imports a module by name
            yield "an enumeration"
        for name, item in value.items():
            if not _NAMES.fullmatch(name) and not (key == "range_constraints" and is_plain_expression(name)):
                yield f"the name {name!r:.80}"
            yield from _findings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _findings(item, key)
    elif isinstance(value, str) and key not in _NOTES and not _plain(value, key):
        yield f"the {key} {value!r:.80}"


def _plain(text: str, key: str) -> bool:
    if key == "target":
        return _is_operator(text)
    if key in ("expr_str", "guards_code"):
        return is_plain_expression(text)
    if key in ("in_spec", "out_spec", "context"):
        return next(_findings(json.loads(text), "spec"), None) is None
    if key in ("as_string", "as_strings", "torch_version"):
        return bool(_TEXT.fullmatch(text))
    return bool(_NAMES.fullmatch(text))


def _is_operator(text: str) -> bool:
    parts = text.split(".")
    if parts[0] == "_operator":
        return len(parts) == 2 and parts[1] in _ARITHMETIC
    if parts[0] == "math":
        return len(parts) == 2  # the module has pure functions only
    if re.fullmatch(r"torch\.sym_\w+", text):
        return True
    if parts[:2] != ["torch", "ops"] or len(parts) < 4 or parts[2] not in _NAMESPACES:
        return False
    target: object = torch.ops
    for part in parts[2:]:
        target = getattr(target, part, None)
    if isinstance(target, torch._ops.OpOverload):
        # aten::from_file makes the file that it names
        return not any("filename" in argument.name for argument in target._schema.arguments)
    return isinstance(target, torch._ops.HigherOrderOperator)
