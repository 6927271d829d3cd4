"""Names of what goes into a model and what comes out: from its `forward`, its program, or the user."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from snowsdeploy.batch import Batch, Inputs
from snowsdeploy.errors import UsageError
from snowsdeploy.values import InputInfo

ONE_INPUT, ONE_OUTPUT = "input", "output"


def random_batch(inputs: Sequence[InputInfo], count: int, seed: int) -> Batch:
    """Normal values, and zeros and ones for whole numbers, which are indices into anything.

    Args:
        inputs: What the model takes.
        count: Items.
        seed: Of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    made = {info.name: _random(info, count, generator) for info in inputs}
    return Inputs(made) if len(made) > 1 else next(iter(made.values()))


def _random(info: InputInfo, count: int, generator: torch.Generator) -> Tensor:
    dtype: torch.dtype = getattr(torch, info.dtype)
    if dtype.is_floating_point:
        return torch.randn(count, *info.shape, generator=generator).to(dtype)
    return torch.randint(0, 2, (count, *info.shape), generator=generator).to(dtype)


def infos_of(batch: Batch, name: str = ONE_INPUT) -> tuple[InputInfo, ...]:
    """What a batch says of the inputs; a single tensor has no name of its own."""
    tensors = batch.tensors if isinstance(batch, Inputs) else {name: batch}
    return tuple(
        InputInfo(name=n, shape=tuple(t.shape[1:]), dtype=str(t.dtype).removeprefix("torch."))
        for n, t in tensors.items()
    )


@dataclass(frozen=True)
class Parameters:
    """What a model can be called with.

    Attributes:
        names: Of its parameters, in order; those of a program are its inputs.
        required: How many of the first have no default.
        any_number: Whether the first is `*args`.
        by_name_only: Whether the first cannot be given by position.
    """

    names: tuple[str, ...]
    required: int
    any_number: bool = False
    by_name_only: bool = False


def parameters_of(model: nn.Module | ExportedProgram) -> Parameters:
    """Names by which inputs can be given."""
    if isinstance(model, ExportedProgram):
        names = tuple(input_names(model))
        return Parameters(names, len(names))
    found = list(inspect.signature(model.forward).parameters.values())
    positional = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    only_named = [p for p in found if p.kind is p.KEYWORD_ONLY]
    required = sum(p.default is p.empty for p in (*positional, *only_named))
    any_number = bool(found) and found[0].kind is inspect.Parameter.VAR_POSITIONAL
    names = tuple(p.name for p in (*positional, *only_named))
    return Parameters(names, required, any_number, by_name_only=bool(only_named) and not positional)


@dataclass(frozen=True)
class Call:
    """How inputs reach `forward`.

    Attributes:
        args: By position.
        kwargs: By name.
        dynamic: The same with each tensor's axes that may vary, as torch.export wants it.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic: Any


def call_of(module: nn.Module, example: Batch, axes: Mapping[str, Mapping[int, Any]]) -> Call:
    """By position for a single input, unless it is not the first; else by name, as one dictionary, or by position.

    Args:
        module: Its `forward` decides.
        example: Two items or more.
        axes: Input -> axis -> what torch.export wants for it.

    Raises:
        UsageError: The names are not those of `forward`.
    """
    known = parameters_of(module)
    if not isinstance(example, Inputs):
        ((name, one),) = axes.items()
        if name in known.names[1:] or known.by_name_only:
            name = name if name in known.names else known.names[0]
            return Call((), {name: example}, {name: dict(one)})
        return Call((example,), {}, ((dict(one),),) if known.any_number else (dict(one),))
    tensors = example.tensors
    by_name = {name: dict(axes[name]) for name in tensors}
    if set(tensors) <= set(known.names):
        ordered = {name: tensors[name] for name in known.names if name in tensors}
        return Call((), ordered, {name: by_name[name] for name in ordered})
    if known.required == 1:
        return Call((dict(tensors),), {}, {known.names[0]: by_name})
    if known.any_number or known.required <= len(tensors) <= len(known.names):
        rows = tuple(by_name.values())
        return Call(tuple(tensors.values()), {}, (rows,) if known.any_number else rows)
    raise UsageError(
        "the inputs are not those of the model's forward",
        seen=", ".join(tensors),
        allowed=", ".join(known.names),
        fix="name them so with --input NAME=SHAPE, or by the keys of the data",
    )


def input_values(exported: ExportedProgram) -> list[Any]:
    """The tensors that a program takes, in order, as it was traced with them."""
    placeholders = {n.name: n.meta["val"] for n in exported.graph.nodes if n.op == "placeholder"}
    return [placeholders[name] for name in exported.graph_signature.user_inputs if isinstance(name, str)]


def input_names(exported: ExportedProgram) -> list[str]:
    """Of the tensors that a program takes, in order: keys and keywords, else the names of its placeholders."""
    signature, spec = exported.graph_signature, exported.call_spec.in_spec
    named = list(_paths(spec, ())) if spec is not None else []
    tensors = [(place, name) for place, name in enumerate(signature.user_inputs) if isinstance(name, str)]
    found = []
    for place, placeholder in tensors:
        keys = [key for key in (named[place] if place < len(named) else ()) if isinstance(key, str)]
        found.append(keys[-1] if keys else placeholder)
    return _unique(found)


def output_names(exported: ExportedProgram) -> list[str]:
    """Of the values that a program gives, in order: keys and fields joined, else `output_0` and so on."""
    given = [s.arg for s in exported.graph_signature.output_specs if s.kind is OutputKind.USER_OUTPUT]
    spec = exported.call_spec.out_spec
    paths = list(_paths(spec, ())) if spec is not None else []
    if len(paths) != len(given):
        paths = [(place,) for place in range(len(given))]
    paths = [path for path, value in zip(paths, given, strict=True) if isinstance(value, TensorArgument)]
    if len(paths) == 1 and not any(isinstance(key, str) for key in paths[0]):
        return [ONE_OUTPUT]
    found = []
    for place, path in enumerate(paths):
        first = next((n for n, key in enumerate(path) if isinstance(key, str)), None)
        found.append(f"{ONE_OUTPUT}_{place}" if first is None else "_".join(map(str, path[first:])))
    return _unique([re.sub(r"\W+", "_", name) for name in found])


def _paths(spec: pytree.TreeSpec, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Keys, fields and positions that lead to each leaf."""
    if spec.is_leaf():
        yield path
        return
    context: Any = spec.context
    keys: Sequence[str | int] = range(spec.num_children)
    fields = getattr(context, "_fields", None)
    if isinstance(fields, tuple):
        keys = fields
    elif isinstance(context, list | tuple):
        flat = context[0] if context and isinstance(context[0], list | tuple) else context
        if len(flat) == spec.num_children and all(isinstance(key, str) for key in flat):
            keys = flat
    for key, child in zip(keys, spec.children(), strict=True):
        yield from _paths(child, (*path, key))


def _unique(names: Sequence[str]) -> list[str]:
    """The same names, numbered where two are alike."""
    counts, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name}_{seen[name]}" if counts[name] > 1 else name)
    return found


def renamed_outputs(names: Sequence[str], given: Sequence[str]) -> list[str]:
    """`--output-names` in place of the model's own.

    Raises:
        UsageError: They are another number, or two are alike.
    """
    if len(given) != len(names) or len(set(given)) < len(given):
        raise UsageError(
            "--output-names does not fit the model's outputs",
            seen=", ".join(given),
            allowed=f"{len(names)} different names, in place of {', '.join(names)}",
            fix="give --output-names one name for each output, in this order",
        )
    return list(given)


def chosen_outputs(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Positions of the outputs that `--outputs` keeps, in the order given.

    Raises:
        UsageError: There is no such output, or one is named twice.
    """
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UsageError(
            "--outputs names no output of the model",
            seen=", ".join(unknown),
            allowed=", ".join(names),
            fix="choose among these, or leave --outputs out to keep all",
        )
    if len(set(wanted)) < len(wanted):
        raise UsageError(
            "--outputs names an output twice",
            seen=", ".join(wanted),
            allowed="each output once",
            fix=f"--outputs {','.join(dict.fromkeys(wanted))}",
        )
    return [names.index(name) for name in wanted]
