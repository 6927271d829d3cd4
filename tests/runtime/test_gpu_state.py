"""The state of a GPU, told by a stand-in for the driver's library."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from snowsdeploy.runtime.gpu_state import read_gpu, used_memory


class NVMLError(Exception):
    """What the binding raises."""


def driver(**changes: Any) -> SimpleNamespace:
    def refuse(*_: object) -> None:
        raise NVMLError

    values: dict[str, Any] = {
        "NVMLError": NVMLError,
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlClocksThrottleReasonSwPowerCap": 0x4,
        "nvmlClocksThrottleReasonHwThermalSlowdown": 0x40,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
        "nvmlDeviceGetName": lambda _: b"NVIDIA Test",
        "nvmlDeviceGetClockInfo": lambda _, kind: {1: 1410, 2: 1593}[kind],
        "nvmlDeviceGetPowerUsage": lambda _: 251_300,
        "nvmlDeviceGetTemperature": lambda _, __: 61,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x44,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=7 << 20),
    }
    refused = dict.fromkeys(changes.pop("refused", ()), refuse)
    return SimpleNamespace(**values | refused | changes)


def test_a_reading_has_clocks_power_temperature_and_why_they_are_held_down() -> None:
    (found,) = read_gpu("after", nvml=driver())
    assert (found.gpu, found.moment) == ("NVIDIA Test", "after")
    assert (found.sm_clock_mhz, found.memory_clock_mhz, found.power_w, found.temperature_c) == (1410, 1593, 251.3, 61)
    assert found.throttled == ("power limit", "temperature, by the hardware")


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    (found,) = read_gpu("after", nvml=driver(refused=("nvmlDeviceGetPowerUsage",)))
    assert found.power_w is None
    assert found.sm_clock_mhz == 1410


def test_without_a_driver_there_is_no_reading() -> None:
    absent = driver(refused=("nvmlInit",))
    assert read_gpu("after", nvml=absent) == ()
    assert used_memory(nvml=absent) is None
    assert used_memory(nvml=driver()) == 7 << 20
