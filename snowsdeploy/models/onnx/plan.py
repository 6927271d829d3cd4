"""Of every constant: where the module holds it and in which layout, decided by the nodes that use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snowsdeploy.models.onnx.constants import Constant, Constants, Source, is_small, product_steps
from snowsdeploy.models.onnx.layouts import Steps, inverse, joined
from snowsdeploy.models.onnx.names import state_paths
from snowsdeploy.models.onnx.shape_values import sizes_among

# Inputs that torch wants as numbers.
_NUMBERS = {
    "Clip": (1, 2), "Resize": (1, 2, 3), "Upsample": (1,), "Pad": (1, 2, 3), "OneHot": (1, 2), "Range": (0, 1, 2),
    "Dropout": (1, 2),
}  # fmt: skip
# Inputs that a training framework would hold as parameters.
_PARAMETERS = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "BatchNormalization": (1, 2), "PRelu": (1,),
    "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2), "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
}  # fmt: skip
_TENSORS = {"BatchNormalization": (1, 2, 3, 4), "LSTM": (1, 2, 3), "GRU": (1, 2, 3), "RNN": (1, 2, 3)}


@dataclass(frozen=True)
class Use:
    """One input of one node that is a constant.

    Attributes:
        constant: What the name stands for.
        op: Operator of the node; empty for an output of the graph.
        index: Which node; the number of nodes for an output of the graph.
        at: Position among the node's inputs, or among the outputs.
        as_number: Whether the node takes numbers there.
        weight: The layout that torch's layer wants, for a product's weight.
    """

    constant: Constant
    op: str
    index: int
    at: int
    as_number: bool
    weight: Steps | None

    @property
    def is_parameter(self) -> bool:
        """Whether a training framework would hold it as a parameter."""
        return self.weight is not None or _listed(_PARAMETERS, self)

    @property
    def needs_state(self) -> bool:
        """Whether a number does not do."""
        return self.is_parameter or _listed(_TENSORS, self)

    @property
    def layout(self) -> Steps:
        """From the file's tensor to what is wanted here."""
        return joined((*self.constant.steps, *(self.weight or ())))


def _listed(table: dict[str, tuple[int, ...]], use: Use) -> bool:
    return use.at in table.get(use.op, ())


@dataclass(frozen=True)
class Place:
    """Where the module holds a tensor of the file.

    Attributes:
        source: The tensor of the file.
        path: Key of the state dict.
        steps: From the file's tensor to the one that is held.
        is_parameter: Otherwise it is a buffer.
    """

    source: Source
    path: str
    steps: Steps
    is_parameter: bool

    def view(self, constant: Constant) -> Steps:
        """From what is held to what a name of the graph stands for."""
        return joined((*inverse(self.steps), *constant.steps))


def uses_of(constants: Constants, outputs: Sequence[str]) -> list[Use]:
    """Every use of a constant, in the order of the nodes."""
    values = constants.values
    sizes = sizes_among(constants.nodes, {name for name, constant in values.items() if is_small(constant)})
    return list(_uses(constants, sizes)) + [
        Use(values[name], "", len(constants.nodes), at, as_number=False, weight=None)
        for at, name in enumerate(outputs)
        if name in values
    ]


def _uses(constants: Constants, sizes: set[str]) -> Iterator[Use]:
    for index, node in enumerate(constants.nodes):
        on_sizes = any(name in sizes for name in node.output)
        for at, name in enumerate(node.input):
            constant = constants.values.get(name)
            if constant is None:
                continue
            power = node.op_type == "Pow" and at == 1 and constant.source.array.size == 1
            as_number = on_sizes or power or at in _NUMBERS.get(node.op_type, ())
            weight = product_steps(node, at, len(constant.shape)) if constant.source.is_float else None
            yield Use(constant, node.op_type, index, at, as_number, weight)


def placed(uses: Sequence[Use], reserved: frozenset[str]) -> dict[str, Place]:
    """Where each tensor of the file is held that is used as a tensor, by its name.

    Args:
        uses: Of every constant.
        reserved: Names that the module uses for something else.
    """
    by_source: dict[str, list[Use]] = {}
    for use in uses:
        if not use.as_number:
            by_source.setdefault(use.constant.source.name, []).append(use)
    held = {name: group for name, group in by_source.items() if _is_held(group)}
    weights = {name: any(use.weight is not None for use in group) for name, group in held.items()}
    paths = state_paths(weights.items(), reserved)
    return {
        name: Place(group[0].constant.source, paths[name], _layout(group), any(use.is_parameter for use in group))
        for name, group in held.items()
    }


def _is_held(group: Sequence[Use]) -> bool:
    """Whether the tensor is data: long, of reals from an initializer, or needed as one by a layer."""
    source = group[0].constant.source
    if any(use.needs_state for use in group):
        return True
    if source.is_float:
        return not (source.constant_node and source.array.size == 1) and source.array.size > 0
    return not all(is_small(use.constant) for use in group)


def _layout(group: Sequence[Use]) -> Steps:
    """The layout that the first product wants; else the one that all uses share; else the file's."""
    for use in group:
        if use.weight is not None:
            return use.layout
    first = group[0].layout
    return first if all(use.layout == first for use in group) else ()
