"""The shared libraries behind ONNX Runtime's NVIDIA providers: loaded where pip put them, or named when missing.

ONNX Runtime itself writes a missing library to its log only, and then goes on without the provider.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

# Start of a library's name -> what brings it, in the versions that onnxruntime-gpu for CUDA 13 links.
_SOURCES = {
    "libcuda.": "install an NVIDIA driver; a machine without a GPU cannot run this provider",
    "libcudart.": "pip install nvidia-cuda-runtime",
    "libcublas": "pip install nvidia-cublas",
    "libcurand.": "pip install nvidia-curand",
    "libcufft.": "pip install nvidia-cufft",
    "libnvrtc.": "pip install nvidia-cuda-nvrtc",
    "libcudnn": "pip install nvidia-cudnn-cu13",
    "libnvinfer": 'pip install "tensorrt-cu13>=10.13.2,<11"',
    "libnvonnxparser": 'pip install "tensorrt-cu13>=10.13.2,<11"',
}
_MISSING = re.compile(r"(lib[\w+.-]+\.so[.\d]*): cannot open shared object file")


@dataclass(frozen=True)
class MissingLibrary:
    """A library that keeps a provider from loading.

    Attributes:
        name: Its file name, with the version that is needed.
        fix: What brings it.
    """

    name: str
    fix: str


@functools.cache
def preload() -> None:
    """Load CUDA, cuDNN and TensorRT from the wheels that pip installed, where the system's linker does not look."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; `missing_library` says it better
        ort.preload_dlls()
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt")  # loads its libraries, whose names the provider then finds


def missing_library(provider: str) -> MissingLibrary | None:
    """The first library that a provider of this build of ONNX Runtime lacks; None when it lacks none.

    Args:
        provider: The middle of the file name `libonnxruntime_providers_<provider>.so`.
    """
    path = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    if not path.is_file():
        return None
    preload()
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return library_in(str(error))  # other errors are of symbols that only ONNX Runtime itself provides
    return None


def library_in(text: str) -> MissingLibrary | None:
    """The missing library that a linker's message names, and what brings it."""
    found = _MISSING.search(text)
    if found is None:
        return None
    name = found[1]
    source = next((fix for start, fix in _SOURCES.items() if name.startswith(start)), "install it")
    return MissingLibrary(name, source)
