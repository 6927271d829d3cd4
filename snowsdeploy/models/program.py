"""The one form that every model takes: a `torch.export` ATen program with a dynamic batch dimension."""

from __future__ import annotations

import copy
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from snowsdeploy.errors import GraphError
from snowsdeploy.files import atomic_path, writing
from snowsdeploy.values import Preprocessing, SourceInfo


@dataclass(frozen=True)
class Program:
    """A traced model, its preprocessing and where it came from.

    Attributes:
        exported: Functional ATen program; one image input `[batch, C, H, W]`, batch dimension dynamic. Convolutions
            and linear layers are whole nodes (`aten.conv2d.default`, `aten.linear.default`).
        preprocessing: How raw images become its input.
        source: Where the weights came from.
        classes: Size of the last axis of the first output.
    """

    exported: ExportedProgram = field(repr=False)
    preprocessing: Preprocessing
    source: SourceInfo
    classes: int

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by fully qualified name."""
        return dict(self.exported.state_dict)

    def with_weights(self, weights: Mapping[str, Tensor]) -> Program:
        """The same program with some weights replaced; this one is unchanged.

        Raises:
            GraphError: A name is not in the state dict, or a shape differs.
        """
        state = self.state_dict
        for name, value in weights.items():
            if name not in state or state[name].shape != value.shape:
                raise GraphError(
                    f"the program has no weight {name} of shape {tuple(value.shape)}",
                    seen=tuple(state[name].shape) if name in state else "no such name",
                    fix="use weights that were solved for this program",
                )
            # The state dict's alias would otherwise be shared with this program's parameter.
            copy = value.detach().clone()
            parameter = isinstance(state[name], torch.nn.Parameter)
            state[name] = torch.nn.Parameter(copy, requires_grad=False) if parameter else copy
        old = self.exported
        exported = ExportedProgram(
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
        return replace(self, exported=exported)

    def on(self, device: torch.device) -> Program:
        """The same program on a device, with its constants and what its nodes make; this one is unchanged."""
        if all(tensor.device == device for tensor in self.state_dict.values()):
            return self
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 warns about how it copies its own trees
            exported = copy.deepcopy(self.exported)
        return replace(self, exported=move_to_device_pass(exported, device))

    def run(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the program in PyTorch.

        Args:
            images: `[batch, C, H, W]`.

        Returns:
            Every output tensor, in the order of the exported graph.
        """
        with torch.no_grad():
            outputs = self.exported.module()(images)
        leaves = torch.utils._pytree.tree_leaves(outputs)
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def save(self, path: Path) -> None:
        """Write a `.pt2` file with the preprocessing beside the graph; atomic.

        Raises:
            OutputError: It could not be written.
        """
        extra = {
            "preprocessing.json": self.preprocessing.model_dump_json(),
            "source.json": self.source.model_dump_json(),
        }
        with writing(path), atomic_path(path) as target:
            torch.export.save(self.exported, target, extra_files=extra)


def saved_source(path: Path) -> SourceInfo | None:
    """Where a program that `Program.save` wrote came from; None for other `.pt2` files."""
    with zipfile.ZipFile(path) as archive:
        member = next((name for name in archive.namelist() if name.endswith("source.json")), None)
        return None if member is None else SourceInfo.model_validate_json(archive.read(member))
