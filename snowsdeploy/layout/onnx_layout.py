"""The checker: proves an N:M layout on the initializers of an ONNX file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from onnx import GraphProto, ModelProto

from snowsdeploy.errors import LayoutError
from snowsdeploy.files import reading
from snowsdeploy.layout.evidence import layer_sparsity, unproven
from snowsdeploy.layout.onnx_file import damaged, read_with_digest, subgraphs, without_functions
from snowsdeploy.layout.onnx_products import WeightUse, model_uses, product_name
from snowsdeploy.patterns.pattern import Pattern
from snowsdeploy.values import LayerSparsity, SparsityEvidence

LAYER_MAP_KEY = "snowsdeploy.layers"  # model metadata: JSON, layer name -> names of the nodes that use its weight


def inspect_onnx(path: Path, pattern: Pattern, shares: Mapping[str, float] = MappingProxyType({})) -> SparsityEvidence:
    """Read the layout of every constant convolution and matrix-product weight in a file.

    A weight is followed from its product through Identity, Transpose, Cast, QuantizeLinear, DequantizeLinear, Reshape
    and Constant to where it is stored, and judged by the values and the axis that the product sees. A weight that
    cannot be read is listed as not holding the pattern, with the reason.

    Args:
        path: Any ONNX file; external data is read from beside it.
        pattern: What to check.
        shares: Share of zeros of each layer that has its own in an unstructured pattern, by name.

    Raises:
        SourceError: The file cannot be read as ONNX.
        LayoutError: Weights are stored as sparse tensors, or our layer names in the metadata are damaged.
    """
    model, digest = _load(path)
    names = _mapped(model)
    rows = [row for use in model_uses(model) for row in _judge(use, names, pattern, shares)]
    return SparsityEvidence(pattern=str(pattern), file=path, sha256=digest, layers=tuple(rows), shares=dict(shares))


def check_onnx(
    path: Path, pattern: Pattern, expected: Sequence[str], shares: Mapping[str, float] = MappingProxyType({})
) -> SparsityEvidence:
    """Prove that layers hold the pattern in a file.

    Args:
        path: The ONNX file.
        pattern: What must hold.
        expected: Names of the layers.
        shares: As `inspect_onnx`.

    Raises:
        LayoutError: Layers are missing from the file or break the pattern; all of them are named.
        SourceError: The file cannot be read.
    """
    evidence = inspect_onnx(path, pattern, shares)
    by_name: dict[str, list[LayerSparsity]] = {}
    for layer in evidence.layers:
        by_name.setdefault(layer.name, []).append(layer)
    missing = [name for name in expected if name not in by_name]
    broken = [_defect(row) for name in expected for row in by_name.get(name, []) if not row.layout_valid]
    if missing or broken:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"broken: {', '.join(broken)}"] * bool(broken)
        raise LayoutError(
            f"the ONNX file does not hold {pattern} where it must",
            seen=f"{path}: {'; '.join(parts)}",
            allowed=f"{_rule(pattern)}, in {len(expected)} layers",
            fix="export again from the pruned weights, without another tool rewriting the file in between",
        )
    return evidence.model_copy(update={"expected": tuple(expected)})


def _rule(pattern: Pattern) -> str:
    if pattern.sparsity is not None:
        return f"at least {pattern} zeros"
    return f"at most {pattern.n} non-zeros in {pattern.m} along the reduction axis"


def _defect(row: LayerSparsity) -> str:
    counted = f"{row.violations} of {row.groups} groups" if row.groups else ""
    return f"{row.name} ({'; '.join(text for text in (counted, row.note) if text)})"


def _load(path: Path) -> tuple[ModelProto, str]:
    model, digest = read_with_digest(path)
    if not model.graph.node:
        raise damaged(path, "it holds no graph")
    return without_functions(model), digest


def node_layers_of(path: Path) -> dict[str, list[str]]:
    """Node name -> layer names, as our exporter wrote them; in other files as their weights are called.

    Raises:
        SourceError: The file cannot be read as ONNX.
        LayoutError: The metadata is damaged.
    """
    return node_layers(_load(path)[0])


def node_layers(model: ModelProto) -> dict[str, list[str]]:
    """Node name -> layer names; several when equal layers became one node."""
    if names := _mapped(model):
        return names
    return {use.node.name: [product_name(use)] for use in model_uses(model) if use.node.name}


def _mapped(model: ModelProto) -> dict[str, list[str]]:
    """Node name -> layer names, from the map that our exporter writes; empty in files of others."""
    text = next((p.value for p in model.metadata_props if p.key == LAYER_MAP_KEY), "{}")
    names: dict[str, list[str]] = {}
    with reading(lambda error: _damaged_map(text)):
        layers = json.loads(text)
        if not all(isinstance(nodes, list) for nodes in layers.values()):
            raise _damaged_map(text)
        for layer, nodes in layers.items():
            for node in nodes:
                names.setdefault(node, []).append(layer)
    return names


def _damaged_map(text: str) -> LayoutError:
    return LayoutError(
        f"the metadata {LAYER_MAP_KEY} is damaged",
        seen=repr(text[:80]),
        allowed="JSON that snowsdeploy export wrote: a layer and a weight for each node",
        fix="export again, or remove the metadata from the file",
    )


@dataclass(frozen=True)
class GraphNodes:
    """The names by which another tool speaks of a file.

    Attributes:
        order: Names of all nodes, in graph order.
        products: Layer, as in `SparsityEvidence` -> names of the nodes that multiply by its weight.
    """

    order: tuple[str, ...]
    products: dict[str, tuple[str, ...]]


def graph_nodes(path: Path) -> GraphNodes:
    """Names of a file's nodes, and which of them are its layers.

    Raises:
        SourceError: The file cannot be read as ONNX.
        LayoutError: As `inspect_onnx`.
    """
    model, _ = _load(path)
    return GraphNodes(tuple(_node_names(model.graph)), layer_nodes(model))


def layer_nodes(model: ModelProto) -> dict[str, tuple[str, ...]]:
    """Layer, as in `SparsityEvidence` -> names of the nodes that multiply by its weight."""
    names, products = _mapped(model), dict[str, tuple[str, ...]]()
    for use in model_uses(model):
        for layer in _layer_names(use, names):
            products[layer] = (*products.get(layer, ()), use.node.name)
    return products


def _node_names(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.name
        for subgraph in subgraphs(node):
            yield from _node_names(subgraph)


def _layer_names(use: WeightUse, names: dict[str, list[str]]) -> list[str]:
    return names.get(use.node.name) or [product_name(use)]


def _judge(
    use: WeightUse, names: dict[str, list[str]], pattern: Pattern, shares: Mapping[str, float]
) -> Iterator[LayerSparsity]:
    weight = use.weight
    problem = weight.problem and f"unproven, because {weight.problem}"
    for name in _layer_names(use, names):
        if weight.values is None or use.axis is None:
            yield unproven(
                name=name,
                tensor=weight.name,
                op=use.node.op_type,
                shape=weight.stored_shape or (),
                zeros=float(np.mean(weight.values == 0)) if weight.values is not None else 0.0,
                note="; ".join(text for text in (use.note, problem) if text),
            )
            continue
        row = layer_sparsity(
            name=name,
            tensor=weight.name,
            op=use.node.op_type,
            nonzero=np.asarray(weight.values != 0),
            axis=use.axis,
            pattern=replace(pattern, sparsity=shares[name]) if name in shares else pattern,
            note=use.note,
        )
        if weight.axes is not None:  # report where the groups lie in the stored tensor
            row = row.model_copy(update={"shape": weight.stored_shape, "axis": weight.axes[use.axis]})
        yield row
