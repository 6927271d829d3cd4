"""Where a run's files lie."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from snowsdeploy.artifacts import Precision, Role
from snowsdeploy.errors import OutputError


@dataclass(frozen=True)
class RunDirectory:
    """One directory a run; every stage reads what the one before it left."""

    path: Path

    @property
    def program(self) -> Path:
        """The dense program."""
        return self.path / "program.pt2"

    @property
    def weights(self) -> Path:
        """The solved weights of the pruned layers."""
        return self.path / "pruned.safetensors"

    @property
    def prune(self) -> Path:
        """The pruning stage's report."""
        return self.path / "prune.json"

    def onnx(self, role: Role, precision: Precision = "fp32") -> Path:
        """An ONNX file: `dense.onnx`, `model.onnx`, `dense.fp16.onnx` ..."""
        stem = "dense" if role == "dense" else "model"
        return self.path / (f"{stem}.onnx" if precision == "fp32" else f"{stem}.{precision}.onnx")

    @property
    def onnx_files(self) -> tuple[Path, ...]:
        """Every ONNX file that a run may leave."""
        return tuple(self.onnx(role, precision) for role in get_args(Role) for precision in get_args(Precision))

    def remove_exports(self) -> None:
        """Remove them, where they are."""
        for path in self.onnx_files:
            path.unlink(missing_ok=True)

    @property
    def export(self) -> Path:
        """The export stage's artifacts."""
        return self.path / "export.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.json"

    @property
    def summary(self) -> Path:
        """The report for people."""
        return self.path / "summary.md"

    @property
    def page(self) -> Path:
        """The report as one HTML file."""
        return self.path / "report.html"

    @property
    def layers(self) -> Path:
        """Solved units, for `--resume`; removed when the pruning stage is complete."""
        return self.path / "layers"

    def prepare(self, *, force: bool, resume: bool) -> None:
        """Create the directory, or take an existing one and remove the results of an earlier run.

        Raises:
            OutputError: It is a file, cannot be written, or is not empty without `force` or `resume`.
        """
        self.require_free(force=force, resume=resume)
        stale = (
            self.program,
            self.weights,
            self.prune,
            *self.onnx_files,
            self.export,
            self.report,
            self.summary,
            self.page,
        )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for path in stale:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                "--out cannot be written", seen=f"{self.path}: {error}", fix="choose another --out"
            ) from error
        if not resume:
            shutil.rmtree(self.layers, ignore_errors=True)

    def require_free(self, *, force: bool, resume: bool) -> None:
        """Refuse a directory that holds something, without touching it.

        Raises:
            OutputError: As `prepare`.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError("--out is a file", seen=self.path, allowed="a directory", fix="choose another --out")
        if self.path.is_dir() and any(self.path.iterdir()) and not (force or resume):
            raise OutputError(
                "--out is not empty",
                seen=self.path,
                allowed="an empty or new directory",
                fix="add --force to overwrite its results, or --resume to continue an interrupted run",
            )
