"""Traces and exports of the same net in one process are made once: most of the suite's time was theirs.

What is kept is told apart by everything that decides it: code, attributes and tensors of every module, or the graph and
the tensors of a program. What a test has changed in place is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from types import CodeType, SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from snowsdeploy.models.program import Program

_PLAIN = (bool, int, float, str, type(None))
_programs: dict[str, tuple[Program, str]] = {}
_models: dict[str, bytes] = {}


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _code_text(code: CodeType) -> str:
    inner = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {inner}"


def _attributes(module: nn.Module) -> str | None:
    """Plain attributes as a text; None where there are others, which could decide anything."""
    own = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    values = [v for value in own.values() for v in (value if isinstance(value, tuple | list) else (value,))]
    return repr(sorted(own.items())) if all(isinstance(v, _PLAIN) for v in values) else None


def module_key(module: nn.Module) -> str | None:
    """Of everything that decides a trace; None where that cannot be told."""
    parts = [repr(module), tensors_digest(module.state_dict())]
    for part in module.modules():
        text, code = _attributes(part), getattr(type(part).forward, "__code__", None)
        if text is None or code is None or part._forward_hooks or part._forward_pre_hooks:
            return None
        parts += [type(part).__qualname__, text, _code_text(code)]
    return sha256("\n".join(parts).encode()).hexdigest()


def traced(key: str | None, make: Callable[[], Program]) -> Program:
    """The program under a key, unless a test has changed its tensors."""
    if key is None:
        return make()
    if key in _programs and tensors_digest(_programs[key][0].state_dict) == _programs[key][1]:
        return _programs[key][0]
    program = make()
    _programs[key] = (program, tensors_digest(program.state_dict))
    return program


@contextmanager
def cached_exports() -> Iterator[None]:
    """`torch.onnx.export` of the same program in the same operator set gives a copy of its first result."""
    plain = torch.onnx.export

    def export(program: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(program, ExportedProgram) or args:
            return plain(program, *args, **options)
        tensors = {**program.state_dict, **{k: t for k, t in program.constants.items() if isinstance(t, Tensor)}}
        text = f"{program.graph} {program.graph_signature} {sorted(options.items())} {tensors_digest(tensors)}"
        key = sha256(text.encode()).hexdigest()
        if key not in _models:
            _models[key] = ir.to_proto(plain(program, **options).model).SerializeToString()
        return SimpleNamespace(model=ir.from_proto(onnx.load_from_string(_models[key])))

    torch.onnx.export = export
    try:
        yield
    finally:
        torch.onnx.export = plain
