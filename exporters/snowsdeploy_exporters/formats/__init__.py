"""The ONNX files of a run -> other formats; each is one module here and one line of `settings.export.WRITERS`."""

from __future__ import annotations

from importlib import import_module

from snowsdeploy.settings.export import WRITERS
from snowsdeploy.stages.packages import PackageWriter
from snowsdeploy.values import Format


def _writer(target: str) -> PackageWriter:
    module, _, name = target.partition(":")
    writer: PackageWriter = getattr(import_module(f"{__name__}.{module}"), name)
    return writer


FORMATS: dict[Format, PackageWriter] = {name: _writer(target) for name, target in WRITERS.items()}

__all__ = ["FORMATS"]
