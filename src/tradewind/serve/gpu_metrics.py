"""GPU gauges under the names of NVIDIA's DCGM exporter, read from NVML when Prometheus asks."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = structlog.get_logger()
MIB = 1 << 20
LABELS = ("gpu", "UUID", "device", "modelName")


class GpuMetrics(Collector):
    """Gauges of every GPU of this machine; one that a GPU does not know is left out for it."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        self._labels = [self._describe(index, device) for index, device in enumerate(self._devices)]

    def collect(self) -> Iterator[Metric]:
        """One family a gauge."""
        nvml = self._nvml
        for name, text, read in (
            ("GPU_UTIL", "Percent of the time in which a kernel ran.", self._utilization("gpu")),
            ("MEM_COPY_UTIL", "Percent of the time in which memory was used.", self._utilization("memory")),
            ("FB_USED", "Memory used, MiB.", self._memory("used")),
            ("FB_FREE", "Memory free, MiB.", self._memory("free")),
            ("GPU_TEMP", "Degrees Celsius.", lambda d: nvml.nvmlDeviceGetTemperature(d, 0)),
            ("POWER_USAGE", "Watts.", lambda d: nvml.nvmlDeviceGetPowerUsage(d) / 1e3),
            ("SM_CLOCK", "Clock of the multiprocessors, MHz.", lambda d: nvml.nvmlDeviceGetClockInfo(d, 1)),
        ):
            yield self._family(f"DCGM_FI_DEV_{name}", text, read)

    def _family(self, name: str, text: str, read: Callable[[Any], float]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=LABELS)
        for device, labels in zip(self._devices, self._labels, strict=True):
            try:
                family.add_metric(labels, read(device))
            except self._nvml.NVMLError:
                continue  # this GPU has no such reading
        return family

    def _utilization(self, of: str) -> Callable[[Any], float]:
        return lambda device: float(getattr(self._nvml.nvmlDeviceGetUtilizationRates(device), of))

    def _memory(self, of: str) -> Callable[[Any], float]:
        return lambda device: getattr(self._nvml.nvmlDeviceGetMemoryInfo(device), of) / MIB

    def _describe(self, index: int, device: Any) -> list[str]:
        nvml = self._nvml
        uuid, model = nvml.nvmlDeviceGetUUID(device), nvml.nvmlDeviceGetName(device)
        return [str(index), str(uuid), f"nvidia{index}", str(model)]


def register_gpus(registry: CollectorRegistry) -> None:
    """Show this machine's GPUs in `registry`, where nvidia-ml-py is installed and a driver answers."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return
    try:
        nvml.nvmlInit()
        registry.register(GpuMetrics(nvml))
    except nvml.NVMLError as error:
        log.info("no GPU metrics", why=str(error))
