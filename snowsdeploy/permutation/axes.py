"""A walk through the graph that gives every axis of every value its channels."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from snowsdeploy.models.graph import base_name
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.permutation import layer_rules, shape_rules
from snowsdeploy.permutation.call import Call, Values, axis_sizes, complete
from snowsdeploy.permutation.channels import Block, Ids, Ledger, Value

Rule = Callable[[Call], Values]

_RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), layer_rules.convolution),
    "linear": layer_rules.linear,
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), layer_rules.batch_norm),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), layer_rules.layer_norm),
    **dict.fromkeys(("group_norm", "native_group_norm"), layer_rules.group_norm),
    **dict.fromkeys(("matmul", "mm", "bmm"), layer_rules.matmul),
    "scaled_dot_product_attention": layer_rules.attention,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze"), shape_rules.view),
    "permute": shape_rules.permute,
    "transpose": shape_rules.transpose,
    "unsqueeze": shape_rules.unsqueeze,
    "select": shape_rules.select,
    "unbind": shape_rules.unbind,
    "slice": shape_rules.cut,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), shape_rules.split),
    "cat": shape_rules.concatenate,
    **dict.fromkeys(("pad", "constant_pad_nd"), shape_rules.pad),
    "expand": shape_rules.expand,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "linalg_vector_norm"), shape_rules.reduce),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), shape_rules.along),
    "roll": shape_rules.roll,
    **dict.fromkeys(
        (
            "adaptive_avg_pool2d",
            "_adaptive_avg_pool2d",
            "adaptive_max_pool2d",
            "avg_pool2d",
            "max_pool2d",
            "max_pool2d_with_indices",
            "upsample_nearest2d",
            "upsample_bilinear2d",
            "upsample_bicubic2d",
        ),
        shape_rules.pool,
    ),
    # element by element, though not tagged so
    **dict.fromkeys(
        ("hardswish", "log_sigmoid", "dropout", "alias", "detach", "contiguous", "_to_copy", "lift_fresh_copy"),
        shape_rules.pointwise,
    ),
}


@dataclass(frozen=True)
class Axes:
    """The channels of a program.

    Attributes:
        ledger: Ties, fixed ids and sets kept together.
        state: `(state tensor, axis)` -> its ids, for every axis longer than one.
    """

    ledger: Ledger
    state: Mapping[tuple[str, int], Ids]


def program_axes(graph: ProgramGraph) -> Axes:
    """Give every axis of every value its channels; model inputs and outputs, and constants, cannot move."""
    ledger = Ledger()
    state: dict[tuple[str, int], Ids] = {}
    known: dict[Node, Values] = {}
    weights = graph.program.exported.state_dict
    for node in graph.placeholders:
        tensor = node.meta.get("val")
        if not isinstance(tensor, Tensor):
            continue
        name = graph.state_names.get(node, "")
        if name in weights and tensor.is_floating_point():
            known[node], axes = _state_value(ledger, axis_sizes(tensor))
            state |= {(name, axis): ids for axis, ids in axes.items()}
        else:
            known[node] = complete(ledger, (), axis_sizes(tensor), f"an input or constant of the model ({node.name})")
    for node in graph.nodes:
        if any(leaf is not None for leaf in Call(node, known, ledger).outputs):
            known[node] = _rule(node)(Call(node, known, ledger))
    for node in graph.outputs:
        value = known.get(node)
        for block in value.blocks if isinstance(value, Value) else ():
            ledger.fix(block.ids, f"an output of the model ({node.name})")
    return Axes(ledger, state)


def _state_value(ledger: Ledger, sizes: tuple[int, ...]) -> tuple[Value, dict[int, Ids]]:
    axes = {axis: ledger.fresh((size,)) for axis, size in enumerate(sizes) if size > 1}
    for ids in axes.values():
        ledger.keep(ids)
    return Value(sizes, tuple(Block((axis,), ids) for axis, ids in axes.items())), axes


def _rule(node: Node) -> Rule:
    if node.target is operator.getitem:
        return _item
    name = base_name(node)
    if name in _RULES:
        return _RULES[name]
    target = node.target
    tagged = isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags
    return shape_rules.pointwise if tagged else shape_rules.unknown


def _item(call: Call) -> Values:
    source, index = call.node.args
    values = call.known.get(source) if isinstance(source, Node) else None
    assert isinstance(values, tuple)
    assert isinstance(index, int)
    return values[index]
