"""Where and how ONNX files run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from snowsdeploy.settings.base import CommaList, Option, Settings, Texts

ProviderName = Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx"]
# What ONNX Runtime calls them, also in the reports of where nodes ran.
EXECUTION_PROVIDERS: dict[ProviderName, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
_PANEL = "Validation and gates"


class RuntimeSettings(Settings):
    """Where and how ONNX files run."""

    provider: Annotated[ProviderName, Option(_PANEL, "NAME")] = Field(
        "cpu", description="Execution provider that must run every node: cpu, cuda, tensorrt or tensorrt-rtx."
    )
    provider_option: Annotated[Texts, Option(_PANEL, "KEY=VALUE")] = Field(
        default_factory=dict, description="ONNX Runtime's option of that provider; may be repeated."
    )
    allow_fallback: Annotated[CommaList[ProviderName], Option(_PANEL, "NAME,NAME")] = Field(
        (), description="Providers that may run the nodes which the first one leaves."
    )
    engine_cache: Annotated[Path | None, Option(_PANEL, "FOLDER")] = Field(
        None, description="Folder that keeps compiled engines; without it every session compiles."
    )
