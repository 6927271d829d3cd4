"""What the export stage wrote."""

from __future__ import annotations

from pydantic import Field

from snowsdeploy.values.base import Artifact, Format, Precision, Role, RunPath
from snowsdeploy.values.command import StageCommand


class OnnxArtifact(Artifact):
    """One exported file; its inputs and outputs are named in the order of the program's.

    Attributes:
        precision: Of its matrix products and convolutions.
        kept: Nodes that a conversion left in FP32 -> why.
    """

    path: RunPath
    role: Role
    sha256: str
    size_bytes: int
    opset: int
    precision: Precision = "fp32"
    kept: dict[str, str] = Field(default_factory=dict)
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    metadata: dict[str, str] = Field(default_factory=dict)


class FilePair(Artifact):
    """The dense and the sparse file of one precision."""

    dense: OnnxArtifact
    sparse: OnnxArtifact

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

    pairs: tuple[FilePair, ...]
    asked: tuple[Precision, ...] = ("fp32",)
    serving: tuple[OnnxArtifact, ...] = ()
    packages: tuple[Package, ...] = ()
    commands: tuple[StageCommand, ...] = ()

    @property
    def fp32(self) -> FilePair:
        """The files that every other precision is compared with."""
        return self.pairs[0]

    @property
    def judged(self) -> tuple[FilePair, ...]:
        """The pairs that were asked for."""
        return tuple(pair for pair in self.pairs if pair.precision in self.asked)
