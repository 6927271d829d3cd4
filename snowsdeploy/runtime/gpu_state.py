"""Names, clocks, power, temperature and throttling of GPUs, told by NVML; nothing where there is no NVIDIA driver."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pynvml

from snowsdeploy.values import GpuReading

SPARSE_CAPABILITY = (8, 0)  # Ampere: the first with sparse tensor cores
# NVML's words, of reasons that slow a running kernel down; an idle GPU or a set application clock is none.
_THROTTLING = {
    "power limit": "nvmlClocksThrottleReasonSwPowerCap",
    "hardware slowdown": "nvmlClocksThrottleReasonHwSlowdown",
    "temperature, by the driver": "nvmlClocksThrottleReasonSwThermalSlowdown",
    "temperature, by the hardware": "nvmlClocksThrottleReasonHwThermalSlowdown",
    "power brake": "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        name: As the driver has it.
        capability: Compute capability, such as `8.6`.
    """

    name: str
    capability: str

    @property
    def sparse_tensor_cores(self) -> bool:
        """Whether it has them: from compute capability 8.0 (Ampere) on."""
        return tuple(map(int, self.capability.split("."))) >= SPARSE_CAPABILITY


def list_gpus(nvml: ModuleType | Any = pynvml) -> tuple[Gpu, ...]:  # noqa: ANN401 - as below
    """Every GPU of the machine; none without a driver.

    Args:
        nvml: The binding; another one in tests.
    """
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return ()
    gpus = []
    for index in range(count):
        with _device(nvml, index) as device:
            if device is not None:
                major, minor = nvml.nvmlDeviceGetCudaComputeCapability(device)
                gpus.append(Gpu(_name(nvml, device), f"{major}.{minor}"))
    return tuple(gpus)


def read_gpu(moment: str, index: int = 0, nvml: ModuleType | Any = pynvml) -> tuple[GpuReading, ...]:  # noqa: ANN401
    """One reading, or none without a driver or such a GPU.

    Args:
        moment: Recorded.
        index: Which GPU.
        nvml: The binding; another one in tests.
    """
    with _device(nvml, index) as device:
        if device is None:
            return ()
        milliwatts = _value(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(device))
        reasons = _value(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)) or 0
        reading = GpuReading(
            moment=moment,
            gpu=_name(nvml, device),
            sm_clock_mhz=_value(nvml, lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=_value(nvml, lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM)),
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=_value(nvml, lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
            throttled=tuple(text for text, flag in _THROTTLING.items() if reasons & getattr(nvml, flag, 0)),
        )
    return (reading,)


def used_memory(index: int = 0, nvml: ModuleType | Any = pynvml) -> int | None:  # noqa: ANN401 - as above
    """Bytes in use on a GPU, by all processes; None without one."""
    with _device(nvml, index) as device:
        return None if device is None else int(nvml.nvmlDeviceGetMemoryInfo(device).used)


@contextlib.contextmanager
def _device(nvml: ModuleType | Any, index: int) -> Iterator[Any]:  # noqa: ANN401 - as above
    try:
        nvml.nvmlInit()
        device = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError:
        yield None
        return
    try:
        yield device
    finally:
        nvml.nvmlShutdown()


def _name(nvml: ModuleType | Any, device: Any) -> str:  # noqa: ANN401 - as above
    name = nvml.nvmlDeviceGetName(device)
    return name.decode() if isinstance(name, bytes) else str(name)


def _value(nvml: ModuleType | Any, read: Callable[[], Any]) -> Any:  # noqa: ANN401 - as above
    """A value that not every GPU tells."""
    try:
        return read()
    except nvml.NVMLError:
        return None
