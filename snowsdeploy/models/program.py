"""The one form that every model takes: a `torch.export` ATen program, its inputs and outputs named."""

from __future__ import annotations

import copy
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

from snowsdeploy.batch import Batch, tensors_of
from snowsdeploy.errors import GraphError
from snowsdeploy.files import atomic_path, writing
from snowsdeploy.models.onnx.file import OnnxFile
from snowsdeploy.values import InputInfo, ModelSignature, Preprocessing, SourceInfo, layer_name


@dataclass(frozen=True)
class Program:
    """A traced model, its preprocessing and where it came from.

    Attributes:
        exported: Functional ATen program; the first axis of every input is the batch, of any size. Convolutions and
            linear layers are whole nodes (`aten.conv2d.default`, `aten.linear.default`).
        preprocessing: How raw images become its input; None where inputs are taken as they are.
        source: Where the weights came from.
        signature: Names, shapes and types of its inputs, names of its outputs.
        classes: Size of the last axis of the first output; 0 where that has no axis but the batch.
        varying: The same model with the signature's dynamic axes, for files and for inputs of other sizes; None where
            only the batch varies.
        file: The ONNX file that it was imported from, whose weights it has; None for a model of PyTorch.
    """

    exported: ExportedProgram = field(repr=False)
    preprocessing: Preprocessing | None
    source: SourceInfo
    signature: ModelSignature
    classes: int
    varying: ExportedProgram | None = field(default=None, repr=False)
    file: OnnxFile | None = field(default=None, repr=False)

    @property
    def inputs(self) -> tuple[InputInfo, ...]:
        """What it takes, in order."""
        return self.signature.inputs

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by fully qualified name."""
        return dict(self.exported.state_dict)

    def layer_name(self, weight: str) -> str:
        """What reports call the layer of a weight: as in its ONNX file where it came from one."""
        own = None if self.file is None else self.file.layers.get(weight)
        return own or layer_name(weight)

    def with_weights(self, weights: Mapping[str, Tensor]) -> Program:
        """The same program with some weights replaced; this one is unchanged.

        Raises:
            GraphError: A name is not in the state dict, or a shape differs.
        """
        state = self.state_dict
        for name, value in weights.items():
            if name not in state or state[name].shape != value.shape:
                raise GraphError(
                    "a weight is not one of the program's",
                    seen=f"{name} of shape {tuple(value.shape)}",
                    allowed=f"shape {tuple(state[name].shape)}"
                    if name in state
                    else "names of the program's state dict",
                    fix="use weights that were solved for this program",
                )
        exported = _with_state(self.exported, weights)
        varying = None if self.varying is None else _with_state(self.varying, weights)
        return replace(self, exported=exported, varying=varying)

    @property
    def shipped(self) -> ExportedProgram:
        """What files are made of."""
        return self.exported if self.varying is None else self.varying

    def on(self, device: torch.device) -> Program:
        """The same program on a device, with its constants and what its nodes make; this one is unchanged."""
        if all(tensor.device == device for tensor in self.state_dict.values()):
            return self
        return replace(self, exported=move_to_device_pass(copied(self.exported), device))

    def run(self, batch: Batch) -> tuple[Tensor, ...]:
        """Run the program in PyTorch.

        Args:
            batch: The only input, or `Inputs`.

        Returns:
            Every output tensor, in the order of the signature.
        """
        given = iter(tensors_of(batch))
        values = [next(given) if isinstance(i, str) else i for i in self.exported.graph_signature.user_inputs]
        exported = self.exported_for(batch)
        spec = exported.call_spec.in_spec
        assert spec is not None
        args, kwargs = pytree.tree_unflatten(values, spec)
        with torch.no_grad():
            outputs = exported.module(check_guards=False)(*args, **kwargs)
        return tuple(leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))

    def exported_for(self, batch: Batch) -> ExportedProgram:
        """What runs a batch: the program of one size, or for other sizes the one whose axes vary."""
        sizes = [tuple(tensor.shape[1:]) for tensor in tensors_of(batch)]
        return self.exported if sizes == [info.shape for info in self.inputs] else self.shipped

    def save(self, path: Path) -> None:
        """Write a `.pt2` file with the preprocessing beside the graph; atomic.

        Raises:
            OutputError: It could not be written.
        """
        extra = {"source.json": self.source.model_dump_json(), "signature.json": self.signature.model_dump_json()}
        if self.preprocessing is not None:
            extra["preprocessing.json"] = self.preprocessing.model_dump_json()
        # not to the file itself: where that cannot grow, PyTorch's writer ends the process
        content = BytesIO()
        torch.export.save(self.shipped, content, extra_files=extra)
        with writing(path), atomic_path(path) as target:
            target.write_bytes(content.getbuffer())


def copied(exported: ExportedProgram) -> ExportedProgram:
    """A deep copy, with the same names of nodes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 warns about how it copies its own trees
        made = copy.deepcopy(exported)
    for old, new in zip(exported.graph.nodes, made.graph.nodes, strict=True):
        if new.name != old.name:  # a copy renames what is called like a builtin, such as `input`
            new.name = old.name
            new.target = old.target if old.op == "placeholder" else new.target
    made.graph_module.recompile()
    return made


def _with_state(old: ExportedProgram, weights: Mapping[str, Tensor]) -> ExportedProgram:
    state = dict(old.state_dict)
    for name, value in weights.items():
        # The state dict's alias would otherwise be shared with the old program's parameter.
        copied = value.detach().to(state[name].device, copy=True)
        parameter = isinstance(state[name], torch.nn.Parameter)
        state[name] = torch.nn.Parameter(copied, requires_grad=False) if parameter else copied
    return ExportedProgram(
        root=old.graph_module,
        graph=old.graph,
        graph_signature=old.graph_signature,
        state_dict=state,
        range_constraints=old.range_constraints,
        module_call_graph=old.module_call_graph,
        example_inputs=old.example_inputs,
        constants=old.constants,
        verifiers=old.verifiers,
    )


def saved_source(path: Path) -> SourceInfo | None:
    """Where a program that `Program.save` wrote came from; None for other `.pt2` files."""
    with zipfile.ZipFile(path) as archive:
        member = next((name for name in archive.namelist() if name.endswith("source.json")), None)
        return None if member is None else SourceInfo.model_validate_json(archive.read(member))
