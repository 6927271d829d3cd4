"""Every value between the nodes of an ONNX file, and of a program, on the same images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, shape_inference
from torch.fx import Node

from snowsdeploy.batch import Batch
from snowsdeploy.errors import ProviderError
from snowsdeploy.models.graph import evaluate
from snowsdeploy.models.program_graph import ProgramGraph
from snowsdeploy.runtime.session import Feed, OrtSession
from snowsdeploy.settings.runtime import RuntimeSettings

Values = dict[str, NDArray[Any]]
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def float_types(model: ModelProto) -> dict[str, int]:
    """Name -> element type of every floating-point value that a node gives, in graph order."""
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # what the file declares of a value may be what is wrong with it
    inferred = shape_inference.infer_shapes(bare).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    produced = (name for node in model.graph.node for name in node.output)
    return {name: types[name] for name in produced if types.get(name) in FLOATS}


def file_values(model: ModelProto, runtime: RuntimeSettings, images: Feed) -> Values:
    """Every floating-point value between nodes, in graph order, as the file says: without graph rewriting.

    Where ONNX Runtime cannot run the whole file, the values of the longest part from its start that does run.

    Args:
        model: The file's content; not changed.
        runtime: Where it runs.
        images: `[batch, C, H, W]`; all values are held at once.

    Raises:
        ProviderError: Not even the first node runs.
    """
    types, count = float_types(model), len(model.graph.node)
    try:
        return _run(_watched(model, types, count), runtime, images)
    except ProviderError:
        runs, fails = 0, count
        while fails - runs > 1:
            middle = (runs + fails) // 2
            try:
                _run(_watched(model, types, middle), runtime, images)
            except ProviderError:
                fails = middle
            else:
                runs = middle
        if runs == 0:
            raise
        return _run(_watched(model, types, runs), runtime, images)


def _run(model: ModelProto, runtime: RuntimeSettings, images: Feed) -> Values:
    session = OrtSession.open(model.SerializeToString(), runtime, rewrite=False)
    return dict(zip(session.output_names, session.run(images), strict=True))


def _watched(model: ModelProto, types: dict[str, int], count: int) -> ModelProto:
    """The first `count` nodes with all their values as outputs."""
    watched = ModelProto()
    watched.CopyFrom(model)
    del watched.graph.node[count:], watched.graph.value_info[:], watched.graph.output[:]
    names = [name for node in watched.graph.node for name in node.output if name in types]
    watched.graph.output.extend(helper.make_tensor_value_info(name, types[name], None) for name in names)
    return watched


def program_values(graph: ProgramGraph, images: Batch) -> dict[Node, Any]:
    """Every value of a program, placeholders included."""
    values: dict[Node, Any] = {**graph.state_values(), **graph.given(images)}
    with torch.no_grad():
        evaluate(graph.nodes, values)
    return values


def recompute(graph: ProgramGraph, wanted: Node, known: dict[Node, Any], stop: Iterable[Node]) -> Any:  # noqa: ANN401 - a node gives anything
    """One value from other values: evaluate what lies between.

    Args:
        graph: The program's graph.
        wanted: The node.
        known: Values, at least of placeholders and of `stop`.
        stop: Nodes where the walk back from `wanted` ends.
    """
    ends, needed, frontier = set(stop), set(), [wanted]
    while frontier:
        node = frontier.pop()
        if node not in needed:
            needed.add(node)
            frontier.extend(p for p in node.all_input_nodes if p in graph.order and p not in ends)
    scope = {n: known[n] for n in known if n not in needed}
    with torch.no_grad():
        evaluate(sorted(needed, key=graph.order.__getitem__), scope)
    return scope[wanted]
