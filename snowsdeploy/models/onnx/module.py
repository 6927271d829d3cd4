"""A graph of ONNX nodes as a module that torch runs and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.traceback import annotate

from snowsdeploy.errors import GraphError
from snowsdeploy.models.onnx.call import FLOATS, Call, Held, Value
from snowsdeploy.models.onnx.layouts import Array
from snowsdeploy.models.onnx.rules import RULES

VALUE = "onnx_value"  # in what a graph node remembers: the file's value that it is a step to


@dataclass(frozen=True)
class Instruction:
    """One node.

    Attributes:
        op: The operator's name.
        node: The node's name, or that of its first output.
        inputs: Names of computed values, or constants; None where an input is left out.
        outputs: Names of the results; empty for those that nothing reads.
        attributes: Decoded.
        last_of: Names that no later node reads.
    """

    op: str
    node: str
    inputs: tuple[str | Array | Held | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    last_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """All nodes in order.

    Attributes:
        inputs: Names, in the order of `forward`'s arguments.
        outputs: Names or constants, in the file's order.
        instructions: In order.
        opset: Version of the operators.
        in_float32: Whether some tensor of the file has another precision, which is computed in FP32 nevertheless.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str | Array | Held, ...]
    instructions: tuple[Instruction, ...]
    opset: int
    in_float32: bool


class OnnxModule(nn.Module):
    """Runs the nodes of an ONNX graph, with its constants as parameters and buffers.

    Attributes:
        graph: The nodes.
        computed_in_float32: Whether reals of another precision in the file are computed in FP32.
    """

    def __init__(self, graph: Graph, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.graph = graph
        self.computed_in_float32 = graph.in_float32
        for path, value in parameters.items():
            folder, name = self._folder(path)
            folder.register_parameter(name, nn.Parameter(value, requires_grad=False))
        for path, value in buffers.items():
            folder, name = self._folder(path)
            folder.register_buffer(name, value)
        self.eval()

    def _folder(self, path: str) -> tuple[nn.Module, str]:
        """The module that holds a path's last part; modules on the way are made."""
        *parts, name = path.split(".")
        module: nn.Module = self
        for part in parts:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module, name

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph.

        Args:
            inputs: In the file's order.

        Returns:
            The outputs in the file's order.

        Raises:
            GraphError: The number of inputs is another.
            SourceError: A node asks for something that is not supported.
        """
        if len(inputs) != len(self.graph.inputs):
            raise GraphError(
                "the ONNX model has another number of inputs",
                seen=f"{len(inputs)} inputs",
                allowed=f"{len(self.graph.inputs)}: {', '.join(self.graph.inputs)}",
                fix="pass one tensor for each input, in the file's order",
            )
        device = inputs[0].device
        scope: dict[str, Value] = dict(zip(self.graph.inputs, map(_single_precision, inputs), strict=True))
        for instruction in self.graph.instructions:
            self._run(instruction, scope, device)
        call = self._call(Instruction("Output", "outputs", (), ()), device)
        return tuple(call.tensor(scope[out] if isinstance(out, str) else out) for out in self.graph.outputs)

    def _run(self, instruction: Instruction, scope: dict[str, Value], device: torch.device) -> None:
        call = self._call(instruction, device)
        values = [scope[value] if isinstance(value, str) else value for value in instruction.inputs]
        try:
            with annotate({VALUE: instruction.outputs[0] if len(instruction.outputs) == 1 else ""}):
                result = RULES[instruction.op](call, *values)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            error.add_note(f"in the ONNX node {instruction.node} ({instruction.op})")
            raise
        results: Sequence[Value] = result if isinstance(result, tuple) else (result,)
        for at, name in enumerate(instruction.outputs):
            if not name:
                continue
            if at >= len(results):
                raise call.refused(
                    "an output of it is not supported",
                    seen=f"output {at}: {name}",
                    allowed=f"its first {'output' if len(results) == 1 else f'{len(results)} outputs'}",
                )
            scope[name] = results[at]
        for name in instruction.last_of:
            del scope[name]

    def _call(self, instruction: Instruction, device: torch.device) -> Call:
        return Call(
            instruction.op,
            instruction.node,
            self.graph.opset,
            instruction.attributes,
            instruction.outputs,
            self,
            device,
        )


def _single_precision(value: Tensor) -> Tensor:
    return value.to(torch.float32) if value.dtype in FLOATS else value
