"""Nodes and constants to the graph that a module runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from snowsdeploy.models.onnx.call import Held
from snowsdeploy.models.onnx.constants import Constants, attributes_of
from snowsdeploy.models.onnx.layouts import Array
from snowsdeploy.models.onnx.module import Graph, Instruction
from snowsdeploy.models.onnx.operators import node_name
from snowsdeploy.models.onnx.plan import Place, Use
from snowsdeploy.models.onnx.read import main_opset

_OTHER_PRECISIONS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Assembly:
    """What a graph is put together from.

    Attributes:
        model: Without local functions.
        constants: Of the model, with the nodes that are left.
        uses: Of all constants.
        places: Where the module holds tensors, by their names in the file.
        inputs: Names of the inputs that need a value.
    """

    model: ModelProto
    constants: Constants
    uses: Sequence[Use]
    places: Mapping[str, Place]
    inputs: Sequence[str]

    def graph(self) -> Graph:
        """Every node with its constants, and the results that nothing needs any more after it."""
        nodes = self.constants.nodes
        outputs = [output.name for output in self.model.graph.output]
        constants = {(use.index, use.at): self._constant(use) for use in self.uses}
        last_readers = {name: index for index, node in enumerate(nodes) for name in node.input}
        last_readers.update(dict.fromkeys(outputs, len(nodes)))

        def instruction(index: int, node: NodeProto) -> Instruction:
            values = [constants.get((index, at), name or None) for at, name in enumerate(node.input)]
            names = {name for name in values if isinstance(name, str)}
            return Instruction(
                node.op_type,
                node_name(node),
                tuple(values),
                tuple(name if name in last_readers else "" for name in node.output),
                attributes_of(node),
                tuple(sorted(name for name in names if last_readers[name] == index)),
            )

        return Graph(
            tuple(self.inputs),
            tuple(constants.get((len(nodes), at), name) for at, name in enumerate(outputs)),
            tuple(instruction(index, node) for index, node in enumerate(nodes)),
            main_opset(self.model),
            self._has_other_precision(),
        )

    def _constant(self, use: Use) -> str | Array | Held:
        """What a node is given for a constant: numbers, or where the module holds the tensor."""
        constant = use.constant
        place = self.places.get(constant.source.name)
        if use.as_number or place is None:
            return constant.numbers
        array = constant.source.array
        is_index = array.dtype.kind in "iu" and array.size > 0 and bool(array.min() >= 0)
        return Held(place.path, place.view(constant), len(constant.shape), is_index)

    def _has_other_precision(self) -> bool:
        """Whether weights, inputs, outputs or casts are of half or double precision."""
        graph = self.model.graph
        kinds = [info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)]
        kinds += [attribute.i for node in graph.node if node.op_type == "Cast" for attribute in node.attribute]
        sources = (constant.source for constant in self.constants.values.values())
        other = any(source.is_float and source.array.dtype.name != "float32" for source in sources)
        return other or any(kind in _OTHER_PRECISIONS for kind in kinds)
