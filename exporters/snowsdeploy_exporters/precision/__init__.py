"""An FP32 file -> the same model in another precision; every zero of a weight stays a zero."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from onnx import ModelProto

from snowsdeploy_exporters.precision.converted import Converted, Images
from snowsdeploy_exporters.precision.fp16 import to_fp16
from snowsdeploy_exporters.precision.int8 import to_int8

Convert = Callable[[ModelProto, Sequence[Images], Collection[str]], Converted]
CONVERTERS: dict[str, Convert] = {"fp16": to_fp16, "int8": to_int8}

__all__ = ["CONVERTERS", "Converted", "Images"]
