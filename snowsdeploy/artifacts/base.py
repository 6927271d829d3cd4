"""Base of every value that is written to JSON, and the words that they share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Literal[1] = 1
Tristate = Literal["yes", "no", "unknown"]
Role = Literal["dense", "sparse"]
Precision = Literal["fp32", "fp16", "int8"]
Format = Literal["onnx", "tensorrt", "triton", "torch"]


class Artifact(BaseModel):
    """Base of every value that is written to JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
