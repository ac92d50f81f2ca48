"""Where each model worker runs: its threads, its CPUs, its device. No torch."""

import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tradewind.serve.gpus import Gpu

Core = tuple[int, ...]
"""The CPUs of one core: several where it runs several threads at once."""


class Node(NamedTuple):
    """One NUMA node, the cores beside one memory: those that this process may use."""

    number: int
    cores: tuple[Core, ...]


class Machine(NamedTuple):
    """What this process may use."""

    nodes: tuple[Node, ...]
    quota_cpus: float = math.inf
    """Seconds of CPU a second, of all threads together, that the control group allows."""
    gpus: tuple[Gpu, ...] = ()
    near: Mapping[int, int] = {}
    """The node next to a GPU, by the GPU's index, where it is known."""


class Place(NamedTuple):
    """Where one worker runs."""

    threads: int = 1
    cpus: tuple[int, ...] = ()
    """The CPUs that it keeps to; none named: wherever the kernel likes."""
    device: str = "cpu"

    @property
    def where(self) -> dict[str, str]:
        """The same for people."""
        return {"device": self.device, "cpus": text_of(self.cpus) or "any", "threads": str(self.threads)}


def places(machine: Machine, workers: int, spares: int = 0) -> tuple[Place, ...]:
    """Return a place for each worker and then each spare; on the machine's GPUs in turn, where it has any.

    Of all CPUs one is the front process's. The workers share the others, each with as many threads, because one profile
    is measured for all. They keep to NUMA nodes where there are several: to the one next to their GPU, and without GPUs
    only where no node is left over; a whole core of the first node is then the front process's. Spares have the places
    of the first workers again: of all only `workers` run at a time.
    """
    front, *others = machine.nodes
    left = {front.number: front.cores[1:] or front.cores} | {node.number: node.cores for node in others}
    cpus = {number: tuple(sorted(cpu for core in cores for cpu in core)) for number, cores in left.items()}
    nodes = _nodes(machine, workers, {number: len(own) for number, own in cpus.items()})
    threads = _threads(machine, nodes, cpus)
    gpus = machine.gpus
    found = [
        Place(
            threads,
            () if node is None else cpus[node],
            f"cuda:{gpus[i % len(gpus)].index}" if gpus else "cpu",
        )
        for i, node in enumerate(nodes)
    ]
    return tuple(found[i % workers] for i in range(workers + spares))


def _nodes(machine: Machine, workers: int, sizes: Mapping[int, int]) -> list[int | None]:
    """Return each worker's node; None for any."""
    if len(sizes) == 1:
        return [None] * workers
    if machine.gpus:
        near = [machine.near.get(gpu.index) for gpu in machine.gpus]
        known = [node if node in sizes else None for node in near]
        return [known[i % len(known)] for i in range(workers)]
    chosen: list[int] = []
    for _ in range(workers):
        chosen.append(max(sizes, key=lambda node: sizes[node] / (chosen.count(node) + 1)))
    return list(chosen) if set(chosen) == set(sizes) else [None] * workers


def _threads(machine: Machine, nodes: Sequence[int | None], cpus: Mapping[int, Sequence[int]]) -> int:
    """Return the threads of each worker: what the fullest node has for one."""
    all_cpus = sum(len(core) for node in machine.nodes for core in node.cores)
    shares = [(math.floor(min(machine.quota_cpus, all_cpus)) - 1) // len(nodes)]
    shares += [len(cpus[node]) // nodes.count(node) for node in set(nodes) if node is not None]
    return max(1, min(shares))


def read(root: pathlib.Path, allowed: Iterable[int], gpus: Sequence[Gpu] = ()) -> Machine:
    """Return what the machine under `root` ("/", but for tests) has of the CPUs `allowed`."""
    usable = set(allowed)
    nodes = tuple(_read_nodes(root, usable)) or (Node(0, _cores(root, usable)),)
    near = {gpu.index: _number(root / f"sys/bus/pci/devices/{gpu.pci}/numa_node") for gpu in gpus if gpu.pci}
    known = {index: node for index, node in near.items() if node is not None and node >= 0}
    return Machine(nodes, _quota(root), tuple(gpus), known)


def here(gpus: Sequence[Gpu] = ()) -> Machine:
    """Return what this process may use, with these GPUs."""
    if hasattr(os, "sched_getaffinity"):
        return read(pathlib.Path("/"), os.sched_getaffinity(0), gpus)
    return Machine((Node(0, tuple((cpu,) for cpu in range(os.cpu_count() or 1))),), gpus=tuple(gpus))


def keep_to(cpus: Iterable[int]) -> None:
    """Have all threads of this process run on these CPUs, and those that they will start."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cpus)


def _read_nodes(root: pathlib.Path, usable: set[int]) -> Iterable[Node]:
    folders = (root / "sys/devices/system/node").glob("node[0-9]*")
    for number, folder in sorted((int(folder.name[4:]), folder) for folder in folders):
        own = numbers_of((folder / "cpulist").read_text()) & usable
        if own:  # some hold memory alone
            yield Node(number, _cores(root, own))


def _cores(root: pathlib.Path, cpus: set[int]) -> tuple[Core, ...]:
    """Return these CPUs by core."""
    found = set()
    for cpu in cpus:
        siblings = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        together = numbers_of(siblings.read_text()) & cpus if siblings.is_file() else {cpu}
        found.add(tuple(sorted(together | {cpu})))
    return tuple(sorted(found))


def _quota(root: pathlib.Path) -> float:
    """Return the least that the control groups around this process allow (cgroup v2); infinity for no limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    group = root / "sys/fs/cgroup" / own.strip("/")
    return min(_limit(folder / "cpu.max") for folder in (group, *group.parents))


def _limit(path: pathlib.Path) -> float:
    if not path.is_file():
        return math.inf
    allowed, period = path.read_text().split()
    return math.inf if allowed == "max" else int(allowed) / int(period)


def _number(path: pathlib.Path) -> int | None:
    return int(path.read_text()) if path.is_file() else None


def numbers_of(text: str) -> set[int]:
    """Return the numbers of a list such as `0-3,8`, as the kernel writes it."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def text_of(numbers: Iterable[int]) -> str:
    """Return such a list."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
