"""GPU gauges, read from a library with NVML's functions: no test machine has a GPU."""

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tradewind.serve import gpu_metrics
from tradewind.serve.gpu_metrics import GpuMetrics, register_gpus


class NVMLError(Exception):
    """What NVML raises."""


def no_power(device: int) -> int:
    raise NVMLError("not supported")


def nvml(**changes: Any) -> Any:
    """Two GPUs, as nvidia-ml-py shows them."""
    functions = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda device: f"GPU-{device}",
        "nvmlDeviceGetName": lambda device: "NVIDIA H100",
        "nvmlDeviceGetUtilizationRates": lambda device: SimpleNamespace(gpu=90 + device, memory=40),
        "nvmlDeviceGetMemoryInfo": lambda device: SimpleNamespace(used=3 << 20, free=5 << 20),
        "nvmlDeviceGetTemperature": lambda device, sensor: 55,
        "nvmlDeviceGetPowerUsage": lambda device: 250_500,
        "nvmlDeviceGetClockInfo": lambda device, clock: 1980,
    }
    return SimpleNamespace(**functions | changes)


def shown(library: Any) -> list[str]:
    registry = CollectorRegistry()
    registry.register(GpuMetrics(library))
    return generate_latest(registry).decode().splitlines()


def test_names_units_and_labels_are_dcgms() -> None:
    """Percent, MiB, watts, MHz; each GPU by index, UUID, device and model."""
    labels = '{UUID="GPU-1",device="nvidia1",gpu="1",modelName="NVIDIA H100"}'
    lines = shown(nvml())
    for name, value in (
        ("GPU_UTIL", 91), ("MEM_COPY_UTIL", 40), ("FB_USED", 3), ("FB_FREE", 5), ("GPU_TEMP", 55),
        ("POWER_USAGE", 250.5), ("SM_CLOCK", 1980),
    ):  # fmt: skip
        assert f"DCGM_FI_DEV_{name}{labels} {float(value)}" in lines


def test_a_reading_that_a_gpu_does_not_have_is_left_out() -> None:
    """The others are shown all the same."""
    lines = shown(nvml(nvmlDeviceGetPowerUsage=no_power))
    assert not [line for line in lines if line.startswith("DCGM_FI_DEV_POWER_USAGE{")]
    assert len([line for line in lines if line.startswith("DCGM_FI_DEV_GPU_UTIL{")]) == 2


def test_without_a_library_or_a_driver_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on a machine without GPUs starts as ever."""

    def no_driver() -> None:
        raise NVMLError("driver not loaded")

    for library in (None, nvml(nvmlInit=no_driver)):
        registry = CollectorRegistry()
        monkeypatch.setitem(__import__("sys").modules, "pynvml", library)
        register_gpus(registry)
        assert generate_latest(registry) == b""
    registry = CollectorRegistry()
    monkeypatch.setattr(gpu_metrics.importlib, "import_module", lambda name: nvml())
    register_gpus(registry)
    assert b"DCGM_FI_DEV_GPU_UTIL" in generate_latest(registry)
