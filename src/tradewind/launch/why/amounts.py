"""Quantities as Kubernetes writes them, and what a pod asks for in total."""

import functools
import re
from collections.abc import Iterable, Mapping

from tradewind.errors import SpecError
from tradewind.launch.why.pods import Amount, Container, PodSpec

Room = dict[str, float]
"""Resource name -> amount."""
_UNITS = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,2})?)(m|n|u|k|[KMGTPE]i?)?")
EPSILON = 1e-6
"""Relative slack, for sums of thousandths."""


@functools.lru_cache(4096)
def amount(value: Amount) -> float:
    """`500m`, `4Gi`, `1e3` or a number, in units; raises SpecError."""
    found = _QUANTITY.fullmatch(str(value).strip()[:99])
    if found is None:
        raise SpecError(
            f"quantity: {str(value)[:40]!r} is none that Kubernetes prints (such as 500m, 4Gi, 8)"
        )
    return float(found[1]) * _UNITS[found[2] or ""]


def room(amounts: Mapping[str, Amount]) -> Room:
    return {name: amount(value) for name, value in amounts.items()}


def add(into: Room, more: Mapping[str, float], sign: float = 1.0) -> None:
    """Add in place."""
    for name, value in more.items():
        into[name] = into.get(name, 0.0) + sign * value


def lacking(need: Mapping[str, float], have: Mapping[str, float]) -> list[str]:
    """The resources of which there is too little."""
    return [name for name, value in need.items() if value > have.get(name, 0.0) + EPSILON * max(1.0, value)]


def need_of(spec: PodSpec) -> Room:
    """What the scheduler sets aside for one pod: its containers together, or its largest init container."""
    total: Room = {}
    for container in (*spec.containers, *(c for c in spec.init_containers if c.restart_policy == "Always")):
        add(total, requests(container))
    for container in spec.init_containers:
        for name, value in requests(container).items():
            total[name] = max(total.get(name, 0.0), value)
    add(total, room(spec.overhead))
    return {name: value for name, value in total.items() if value > 0} | {"pods": 1.0}


def requests(container: Container) -> Room:
    """A limit without a request is one."""
    return room(container.resources.limits) | room(container.resources.requests)


def limits_of(spec: PodSpec) -> Room:
    """The limits of a pod's containers together."""
    total: Room = {}
    for container in spec.containers:
        add(total, room(container.resources.limits))
    return total


def total(rooms: Iterable[Mapping[str, float]]) -> Room:
    found: Room = {}
    for each in rooms:
        add(found, each)
    return found


def shown(name: str, value: float) -> str:
    """An amount as a person reads it."""
    if name.endswith(("memory", "storage")) or "hugepages" in name:
        return f"{value / 2**30:.4g}Gi"
    return f"{value:.4g}"


def main_resource(need: Mapping[str, float]) -> str:
    """The resource a person thinks of first: an accelerator, else CPUs."""
    devices = [name for name in need if "/" in name.removeprefix("requests.")]
    return devices[0] if devices else ("cpu" if "cpu" in need else "pods")
