"""What a model returns, as tensors that torch.export and ONNX can hold; and a program with fewer of them."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, OutputKind, TensorArgument
from torch.utils import _pytree as pytree


@contextmanager
def plain_outputs(module: nn.Module) -> Iterator[None]:
    """Let `forward` return dictionaries in place of dataclasses that torch does not know; the module is as before."""
    own = "forward" in vars(module)
    forward = module.forward

    @functools.wraps(forward)
    def plain(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the model takes and gives
        return _plain(forward(*args, **kwargs))

    module.forward = plain
    try:
        yield
    finally:
        if own:
            module.forward = forward
        else:
            del module.forward


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a model gives
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and _is_leaf(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(part) for name, part in fields.items() if part is not None}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # torch.export saves no class of the user's
        return {name: _plain(part) for name, part in zip(value._fields, value, strict=True)}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, Mapping) and _is_leaf(value):  # a dictionary of the user's own class
        return {str(key): _plain(part) for key, part in value.items()}
    if type(value) is dict:
        return {key: _plain(part) for key, part in value.items()}
    return value


def _is_leaf(value: object) -> bool:
    """Whether torch would not look inside."""
    return pytree.tree_flatten(value)[1].is_leaf()


def gives_plain(exported: ExportedProgram) -> bool:
    """Whether it returns tuples, lists and dictionaries alone: a file of the program holds no other classes."""
    spec = exported.call_spec.out_spec
    kinds = (tuple, list, dict, OrderedDict)

    def plain(each: pytree.TreeSpec) -> bool:
        return each.is_leaf() or (each.type in kinds and all(map(plain, each.children())))

    return spec is None or plain(spec)


def with_outputs(exported: ExportedProgram, places: Sequence[int]) -> ExportedProgram:
    """A program that gives some of its tensors only, and computes nothing for the others.

    Args:
        exported: Decomposed; its graph is taken over, so it is of no use after.
        places: Of the tensors to keep, counted among the tensors it gives.
    """
    module = exported.graph_module
    old = exported.graph_signature
    output = next(node for node in module.graph.nodes if node.op == "output")
    specs = list(zip(old.output_specs, output.args[0], strict=True))
    tensors = [(s, n) for s, n in specs if s.kind is OutputKind.USER_OUTPUT and isinstance(s.arg, TensorArgument)]
    kept = [tensors[place] for place in places]
    output.args = (tuple(node for _, node in kept),)
    module.graph.eliminate_dead_code()
    module.recompile()
    entry = copy.deepcopy(exported.module_call_graph)
    assert entry[0].signature is not None
    entry[0].signature.out_spec = pytree.tree_flatten(tuple(range(len(kept))))[1]
    entry[0].signature.outputs = [spec.arg for spec, _ in kept]
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=ExportGraphSignature(old.input_specs, [spec for spec, _ in kept]),
        state_dict=dict(exported.state_dict),
        range_constraints=exported.range_constraints,
        module_call_graph=entry,
        example_inputs=exported.example_inputs,
        constants=exported.constants,
        verifiers=exported.verifiers,
    )
