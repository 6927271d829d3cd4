"""What the export stage wrote."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from snowsdeploy.values.base import Artifact, Format, Precision, Role, RunPath, Sha256
from snowsdeploy.values.command import StageCommand
from snowsdeploy.values.numbers import Size

_Names = Annotated[tuple[str, ...], Field(min_length=1)]


class OnnxArtifact(Artifact):
    """One exported file; its inputs and outputs are named in the order of the program's.

    Attributes:
        precision: Of its matrix products and convolutions.
        kept: Nodes that a conversion left in FP32 -> why.
    """

    path: RunPath
    role: Role
    sha256: Sha256
    size_bytes: Size
    opset: Size
    precision: Precision = "fp32"
    kept: dict[str, str] = Field(default_factory=dict)
    input_names: _Names
    output_names: _Names
    metadata: dict[str, str] = Field(default_factory=dict)


class FilePair(Artifact):
    """The dense and the sparse file of one precision: two files with the same inputs and outputs."""

    dense: OnnxArtifact
    sparse: OnnxArtifact

    @model_validator(mode="after")
    def _are_a_pair(self) -> Self:
        for role in ("dense", "sparse"):
            if getattr(self, role).role != role:
                raise ValueError(f"{role}.role is {getattr(self, role).role}")
        for name in ("sha256", "path"):
            if getattr(self.dense, name) == getattr(self.sparse, name):
                raise ValueError(f"dense and sparse have the same {name}: they are one file")
        for name in ("precision", "input_names", "output_names"):
            ours, theirs = getattr(self.dense, name), getattr(self.sparse, name)
            if ours != theirs:
                raise ValueError(f"{name} of dense and sparse differ: {ours} and {theirs}")
        return self

    @property
    def precision(self) -> Precision:
        """Of both."""
        return self.sparse.precision


class Package(Artifact):
    """What was written for one format beside the ONNX files.

    Attributes:
        format: Its name.
        folder: Where it lies.
        files: Relative to the folder.
        notes: What a user must know of it, such as what was not made and why.
    """

    format: Format
    folder: RunPath
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


class ExportReport(Artifact):
    """The export stage: a pair of files for each precision; FP32, from which the others are made, is always there.

    Attributes:
        pairs: FP32 first.
        asked: The precisions that the user asked for; only these are judged.
        serving: Files with preprocessing or output ends in the graph, one for each precision asked for.
        packages: One for each format beside ONNX.
        commands: By which the export stage alone was run, oldest first.
    """

    pairs: Annotated[tuple[FilePair, ...], Field(min_length=1)]
    asked: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp32",)
    serving: tuple[OnnxArtifact, ...] = ()
    packages: tuple[Package, ...] = ()
    commands: tuple[StageCommand, ...] = ()

    @model_validator(mode="after")
    def _what_was_asked_is_there(self) -> Self:
        written = [pair.precision for pair in self.pairs]
        if written[0] != "fp32" or len(set(written)) < len(written):
            raise ValueError(f"pairs are of {', '.join(written)}; each precision has one, fp32 first")
        if missing := set(self.asked) - set(written):
            raise ValueError(f"asked names {', '.join(sorted(missing))}, which pairs do not have")
        return self

    @property
    def fp32(self) -> FilePair:
        """The files that every other precision is compared with."""
        return self.pairs[0]

    @property
    def judged(self) -> tuple[FilePair, ...]:
        """The pairs that were asked for."""
        return tuple(pair for pair in self.pairs if pair.precision in self.asked)
