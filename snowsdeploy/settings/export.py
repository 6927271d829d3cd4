"""Which files are written."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field, field_validator

from snowsdeploy.errors import UsageError
from snowsdeploy.settings.base import CommaList, Option, Repeated, Settings, Texts, one_of
from snowsdeploy.values import Precision

_PANEL = "Export"
METADATA_PREFIX = "snowsdeploy."  # of the keys in a file's metadata that say where it came from

# Format beside ONNX -> its writer in snowsdeploy_exporters.formats; a line for each.
WRITERS = {"tensorrt": "tensorrt:write_tensorrt", "triton": "triton:write_triton", "torch": "pytorch:write_torch"}
Format = Annotated[str, *one_of(("onnx", *WRITERS))]


class ExportSettings(Settings):
    """Which files are written."""

    opset: Annotated[int, Option(_PANEL, "N")] = Field(20, ge=18, le=23, description="ONNX operator set of the files.")
    precision: Annotated[CommaList[Precision], Option(_PANEL, ",".join(get_args(Precision)))] = Field(
        ("fp32",), min_length=1, description="Precisions to write and judge; a list, or repeated."
    )
    keep_fp32: Annotated[Repeated, Option(_PANEL, "GLOB")] = Field(
        (), description="Leave layers or nodes in FP32 whose name matches; may be repeated."
    )
    format: Annotated[CommaList[Format], Option(_PANEL, "NAME,NAME")] = Field(
        ("onnx",), min_length=1, description=f"Formats to write beside ONNX: {', '.join(WRITERS)}."
    )
    metadata: Annotated[Texts, Option(_PANEL, "KEY=VALUE")] = Field(
        default_factory=dict,
        description="Entry of the ONNX files' metadata, such as class names for what loads them; may be repeated.",
    )
    uint8_input: Annotated[bool, Option(_PANEL)] = Field(
        False, description="Also write serving.onnx, which takes uint8 pixels [batch, H, W, C] and normalises them."
    )
    softmax: Annotated[bool, Option(_PANEL)] = Field(
        False, description="Also write serving.onnx, which ends in probabilities."
    )
    top_k: Annotated[int | None, Option(_PANEL, "K")] = Field(
        None, ge=1, description="Also write serving.onnx, which gives the K best classes and their values."
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _runs_here(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the user wrote
        texts = [value] if isinstance(value, str) else value if isinstance(value, tuple | list) else ()
        if any("bf16" in str(text) for text in texts):
            raise UsageError(
                "--precision bf16 is not offered: no file in it could be verified",
                seen="ONNX Runtime's CPU provider has no bfloat16 Conv, MatMul or Gemm",
                allowed=", ".join(get_args(Precision)),
                fix="use fp16: a node whose values would overflow stays in FP32",
            )
        return value

    @field_validator("metadata", mode="after")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        taken = [key for key in value if not key or key.startswith(METADATA_PREFIX)]
        if taken:
            raise UsageError(
                "--metadata: the key is empty or one of those that say where the file came from",
                seen=", ".join(map(repr, taken)),
                allowed=f"any other that does not begin with {METADATA_PREFIX}",
                fix="choose another key",
            )
        return value

    @property
    def serving(self) -> bool:
        """Whether serving files are asked for."""
        return self.uint8_input or self.softmax or self.top_k is not None
