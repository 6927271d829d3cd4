"""Where a run's files lie."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from snowsdeploy.distributed import Launch
from snowsdeploy.errors import OutputError
from snowsdeploy.files import locked_folder
from snowsdeploy.pruning.workspace import Workspace
from snowsdeploy.stages.packages import PACKAGE_MARK
from snowsdeploy.values import Format, Precision, Role


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error for a place where nothing can be written."""
    return OutputError(
        "--out cannot be written",
        seen=f"{path}: {error.strerror or error}",
        allowed="a directory that can be made and written",
        fix="choose another --out",
    )


@dataclass(frozen=True)
class RunDirectory:
    """One directory a run; every stage reads what the one before it left."""

    path: Path

    @property
    def program(self) -> Path:
        """The dense program."""
        return self.path / "program.pt2"

    @property
    def original(self) -> Path:
        """The ONNX file that the program was imported from, where it was."""
        return self.path / "original.onnx"

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

    def serving(self, precision: Precision = "fp32") -> Path:
        """The sparse model with preprocessing or output ends: `serving.onnx`, `serving.fp16.onnx` ..."""
        return self.path / ("serving.onnx" if precision == "fp32" else f"serving.{precision}.onnx")

    def package(self, format_: Format) -> Path:
        """The folder of a format beside ONNX."""
        return self.path / format_

    @property
    def onnx_files(self) -> tuple[Path, ...]:
        """Every ONNX file that a run may leave."""
        precisions: tuple[Precision, ...] = get_args(Precision)
        pairs = (self.onnx(role, precision) for role in get_args(Role) for precision in precisions)
        return (*pairs, *(self.serving(precision) for precision in precisions))

    def require_packages_free(self, formats: Iterable[Format]) -> None:
        """Refuse a folder that has a package's name and is not ours.

        Raises:
            OutputError: There is one.
        """
        for path in map(self.package, formats):
            if path.exists() and not (path / PACKAGE_MARK).is_file():
                raise OutputError(
                    f"--format {path.name} would overwrite what this program has not written",
                    seen=path,
                    allowed=f"a new folder, or one that --format {path.name} wrote before",
                    fix="move it away, or choose another --out",
                )

    def remove_exports(self) -> None:
        """Remove everything that the export stage leaves, where it is."""
        for path in (*self.onnx_files, self.export):
            path.unlink(missing_ok=True)
        for path in (mark.parent for mark in self.path.glob(f"*/{PACKAGE_MARK}")):
            shutil.rmtree(path)

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
    def masks(self) -> Path:
        """Which weights of the pruned layers stay."""
        return self.path / "masks.safetensors"

    @property
    def config(self) -> Path:
        """The effective settings, policy and versions, as `--config` takes them."""
        return self.path / "config.toml"

    @property
    def layers(self) -> Path:
        """Solved units, for `--resume`; removed when the pruning stage is complete."""
        return self.path / "layers"

    @property
    def activations(self) -> Path:
        """Activations on disk; only there while the pruning stage runs."""
        return self.path / "activations"

    def workspace(self, *, resume: bool) -> Workspace:
        """What the pruning stage keeps here while it runs."""
        return Workspace(self.layers, self.activations, resume)

    @property
    def launch(self) -> Path:
        """Which job of torchrun has taken the directory; removed when no restart can follow."""
        return self.path / ".launch"

    def taken_before(self, launch: Launch | None) -> bool:
        """Whether the directory is of the same job of torchrun, which has started its processes again."""
        if launch is None or not launch.again:
            return False
        try:
            return self.launch.read_text(encoding="utf-8").strip() == launch.job
        except OSError:
            return False

    @property
    def mark(self) -> Path:
        """Says that the files of a run that lie here are ours."""
        return self.path / ".snowsdeploy"

    @property
    def _results(self) -> tuple[Path, ...]:
        return (
            self.program,
            self.original,
            self.weights,
            self.masks,
            self.prune,
            self.config,
            self.report,
            self.summary,
            self.page,
            self.launch,
        )

    @contextmanager
    def taken(self, *, force: bool, resume: bool) -> Iterator[None]:
        """Create the directory, or take an existing one and remove the results of an earlier run; nobody else can.

        Raises:
            OutputError: It is a file, cannot be written, is not empty without `force` or `resume`, holds what this
                program has not written under a name of its own, or another run is writing there.
        """
        self.require_free(force=force, resume=resume)
        with self._writable():
            self.path.mkdir(parents=True, exist_ok=True)
        with self.locked():
            with self._writable():
                self._clean(resume=resume)
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes there meanwhile.

        Raises:
            OutputError: Another run does.
        """
        with locked_folder(self.path):
            yield

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _clean(self, *, resume: bool) -> None:
        """Remove what runs leave here, finished or killed."""
        self.mark.write_text("A run of snowsdeploy: --force and --resume replace its files, and no others.\n")
        for path in self._results:
            path.unlink(missing_ok=True)
        for path in (*self._results, *self.onnx_files, self.export):
            for unfinished in self.path.glob(f".{path.stem}-*{path.suffix}"):  # of a run that was killed
                unfinished.unlink()
        space = self.workspace(resume=resume)
        space.clear_scratch()
        if not resume:
            space.clear()
        self.remove_exports()

    def require_free(self, *, force: bool, resume: bool) -> None:
        """Refuse a directory that holds something, without touching it.

        Raises:
            OutputError: As `taken`.
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
        foreign = [p.name for p in (*self._results, *self.onnx_files, self.export) if p.exists()]
        if foreign and not self.mark.is_file():
            raise OutputError(
                "--out holds what this program has not written, and would overwrite it",
                seen=f"{self.path}: {', '.join(foreign)}",
                allowed="an empty or new directory, or one that this program made",
                fix="move it away, or choose another --out",
            )
        if self.path.is_dir():
            with self.locked():  # told at the start; another run is told again when it writes
                pass
