"""The ONNX files of a run -> other formats; each is one module and one line of the table."""

from __future__ import annotations

from snowsdeploy.stages.packages import PackageWriter
from snowsdeploy.values import Format
from snowsdeploy_exporters.formats.pytorch import write_torch
from snowsdeploy_exporters.formats.tensorrt import write_tensorrt
from snowsdeploy_exporters.formats.triton import write_triton

FORMATS: dict[Format, PackageWriter] = {"tensorrt": write_tensorrt, "triton": write_triton, "torch": write_torch}

__all__ = ["FORMATS"]
