"""Formats beside ONNX: each is written into a folder of its own by a function that comes in as a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snowsdeploy.errors import UsageError
from snowsdeploy.files import atomic_folder
from snowsdeploy.models.program import Program
from snowsdeploy.progress import Observer
from snowsdeploy.values import ExportReport, Format, Package, Precision, PruneReport, Role


@dataclass(frozen=True)
class Contents:
    """What a format is made from.

    Attributes:
        pruned: The pruned program.
        prune: How it was pruned.
        files: The ONNX files of this run; they lie in the folder that holds the package's.
    """

    pruned: Program
    prune: PruneReport
    files: ExportReport


class PackageWriter(Protocol):
    """Writes one format."""

    def __call__(self, contents: Contents, folder: Path) -> Sequence[str]:
        """Write files into an empty folder.

        Args:
            contents: What to write.
            folder: A temporary name; the folder lies where it will stay.

        Returns:
            What a user must know of it, such as what was not made and why.
        """


PACKAGE_MARK = ".snowsdeploy"  # in every package's folder: only what holds it is ever removed
Writers = Mapping[Format, PackageWriter]


class Place(Protocol):
    """Where exported files go; a run directory is one."""

    def onnx(self, role: Role, precision: Precision = "fp32") -> Path:
        """An ONNX file."""

    def serving(self, precision: Precision = "fp32") -> Path:
        """The sparse model with preprocessing or output ends."""

    def package(self, format_: Format) -> Path:
        """The folder of a format beside ONNX."""

    def require_packages_free(self, formats: Iterable[Format]) -> None:
        """Refuse a folder that has a package's name and is not ours."""

    def remove_exports(self) -> None:
        """Remove everything that the export stage leaves."""


def require_formats(asked: Sequence[Format], writers: Writers, place: Place) -> None:
    """Refuse what could not be written, before minutes are spent.

    Raises:
        UsageError: There is no writer for a format.
        OutputError: A package's folder is taken by something else.
    """
    wanted = _beside_onnx(asked)
    unknown = [name for name in wanted if name not in writers]
    if unknown:
        raise UsageError(
            "--format needs a writer that was not passed in",
            seen=", ".join(unknown),
            allowed=", ".join(["onnx", *writers]),
            fix="pass snowsdeploy_exporters.FORMATS",
        )
    place.require_packages_free(wanted)


def write_packages(
    contents: Contents, asked: Sequence[Format], writers: Writers, place: Place, observer: Observer
) -> tuple[Package, ...]:
    """Write every asked format, each whole or not at all.

    Raises:
        ExportError: As a writer says.
    """
    packages = []
    for name in _beside_onnx(asked):
        observer.message(f"writing {name}")
        folder = place.package(name)
        with atomic_folder(folder) as temporary:
            notes = writers[name](contents, temporary)
            files = sorted(p.relative_to(temporary).as_posix() for p in temporary.rglob("*") if p.is_file())
            (temporary / PACKAGE_MARK).write_text("Removed with the other results of this run.\n", encoding="utf-8")
        packages.append(Package(format=name, folder=folder, files=tuple(files), notes=tuple(notes)))
    return tuple(packages)


def _beside_onnx(asked: Sequence[Format]) -> list[Format]:
    return [name for name in dict.fromkeys(asked) if name != "onnx"]
