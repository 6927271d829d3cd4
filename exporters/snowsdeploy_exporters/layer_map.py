"""Which ONNX node multiplies by which weight of the program."""

from __future__ import annotations

import re

import onnx_ir as ir
import torch
from torch.export import ExportedProgram

from snowsdeploy.models.program import Program
from snowsdeploy.models.program_graph import ProgramGraph

_PRODUCTS = {"Conv", "Gemm", "MatMul"}
_FX_NODE = "pkg.torch.onnx.fx_node"  # the exporter's record of the graph node that an ONNX node came from
_REFERENCE = re.compile(r"%(\w+)")


def layer_map(model: ir.Model, program: Program, translated: ExportedProgram) -> dict[str, list[str]]:
    """Map each layer's name to the names of the ONNX nodes that multiply by its weight.

    Initializer names alone do not tell: the exporter transposes weights under new names and merges initializers of
    equal value. So each node is traced to its layer by the exporter's record of the graph node it came from:

    - a product that the exporter converted names the weight's placeholder;
    - a convolution that absorbed a normalisation carries the normalisation's record, which names the convolution;
    - what a rewrite left without either still has the initializer under the weight's name.

    Two layers with equal weights on one input become one node; both are mapped to it.

    Args:
        model: The converted model, with the exporter's metadata.
        program: What it was converted from.
        translated: The same as torch.onnx got it: names of its nodes are those of the records.
    """
    graph = ProgramGraph(program)
    tensors = graph.state_values()
    values = {weight: tensors[layer.placeholder] for weight, layer in graph.layers.items()}
    signature = translated.graph_signature
    states = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    placeholders = {name: weight for name, weight in states.items() if weight in graph.layers}
    for name in graph.layers:  # how torch.onnx calls one that was folded, whose placeholder has a name of ours
        placeholders.setdefault(f"p_{re.sub(r'[^0-9a-z]', '_', name.lower())}", name)
    calls = {
        node.name: placeholders[weight.name]
        for node in translated.graph.nodes
        for weight in node.args[1:2]
        if isinstance(weight, torch.fx.Node) and weight.name in placeholders
    }
    layers: dict[str, list[str]] = {}
    for node in model.graph.all_nodes():
        if node.op_type not in _PRODUCTS or node.name is None:
            continue
        weight = _weight_of(node, placeholders, calls, values)
        if weight is not None:
            layers.setdefault(weight, []).append(node.name)
    mapped = list(layers)
    for weight in values.keys() - layers.keys():
        twin = next((other for other in mapped if torch.equal(values[other], values[weight])), None)
        if twin is not None:
            layers[weight] = layers[twin]
    return {graph.layers[weight].name: nodes for weight, nodes in layers.items()}


def _weight_of(
    node: ir.Node, placeholders: dict[str, str], calls: dict[str, str], values: dict[str, torch.Tensor]
) -> str | None:
    record = node.metadata_props.get(_FX_NODE, "")
    references = _REFERENCE.findall(record)
    for reference in references:
        if reference in placeholders:
            return placeholders[reference]
    constants = [v for v in node.inputs if v is not None and v.const_value is not None]
    if "norm" in record:
        shapes = {tuple(v.const_value.shape) for v in constants if v.const_value is not None}
        for reference in references:
            if reference in calls and tuple(values[calls[reference]].shape) in shapes:
                return calls[reference]
    return next((v.name for v in constants if v.name in values), None)
