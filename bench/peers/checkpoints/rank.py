"""One rank of the speed benchmark; rank 0 prints what was measured as one JSON line.

    python -m bench.peers.checkpoints.rank '{"mode": "background", "driver": ..., "bytes": ..., ...}'

`background`: stalls, durations and step times of saves in the background. `foreground`: ours and DCP
save and load in turn, from the page cache and from the disk, and ours loads from memory. Every figure
is the slowest rank's.
"""

import collections
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from bench.peers.checkpoints import drivers

Seconds = dict[str, list[float]]
WARM_SAVES = 2
SAVING_STEPS = 900
"""Behind saves, so that a 99th percentile means something; as many quiet ones, after each save, because what else the
machine does comes and goes."""
UNCOMPARED_STEPS = 150
MOST_SAVES = 4
FOREGROUND_SAVES = 2


def timed(work: Callable[[], Any]) -> float:
    """Seconds of work that all ranks begin together."""
    dist.barrier()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Memcpy:
    """The yardstick: every tensor copied, by the C library, into memory that is there and warm."""

    def __init__(self, state: drivers.State) -> None:
        self._from = [tensor.numpy() for tensor in drivers.tensors_of(state)]
        self._to = [array.copy() for array in self._from]

    def __call__(self) -> None:
        for target, source in zip(self._to, self._from, strict=True):
            np.copyto(target, source)


class Steps:
    """A training step of some 20 ms: matrix products, then a pass over part of the state."""

    def __init__(self, state: drivers.State) -> None:
        self._weight = torch.rand(512, 512) / 256
        self._input = torch.rand(512, 512)
        self._state = next(iter(drivers.tensors_of(state)))
        self._products = 1
        # The fastest of a few, or a moment's disturbance makes a rank's steps shorter for good.
        while min(self._once() for _ in range(5)) < 0.02:
            self._products += 1

    def _once(self) -> float:
        started = time.perf_counter()
        value = self._input
        for _ in range(self._products):
            value = value @ self._weight
        self._state.mul_(1.0)
        return time.perf_counter() - started

    def until(self, done: Callable[[], bool]) -> list[float]:
        """Seconds of each step until something is done."""
        times: list[float] = []
        while not done():
            times.append(self._once())
        return times

    def quiet(self, steps: int) -> list[float]:
        """Seconds of each of so many steps with nothing behind them."""
        return [self._once() for _ in range(steps)]


def background(asked: dict[str, Any], shared: drivers.State, own: drivers.State) -> Seconds:
    """Saves of one contender: warm-ups, then saves with training steps behind them."""
    root = Path(asked["folder"], asked["driver"])
    driver = drivers.DRIVERS[asked["driver"]](root, Path(asked["memory"]))
    for step in range(WARM_SAVES):
        driver.save(step, shared, own)
        driver.wait()
        forget(root, step)
    state = shared if asked["layout"] == "alike" else own
    steps = Steps(state)
    compared = asked["layout"] == "alike"
    fewest = SAVING_STEPS if compared else UNCOMPARED_STEPS
    quiet, stalls, totals, saving = [], [], [], []
    while not enough(saving, fewest) and len(stalls) < MOST_SAVES:
        step += 1
        stalls.append(timed(lambda: driver.save(step, shared, own)))  # noqa: B023 - called at once
        saving += (behind := steps.until(driver.done))
        totals.append(stalls[-1] + sum(behind))
        forget(root, step)
        quiet += steps.quiet(len(behind) if compared else 1)
    driver.close()
    return {
        # Last: where a hypervisor takes freed memory back, copies are slower for seconds after gigabytes were freed.
        "memcpy": [_copied(state) if asked["driver"] == "tradewind" else 0.0],
        "stall": stalls,
        "total": totals,
        "p99_quiet": [float(np.quantile(quiet, 0.99))],
        "p99_saving": [float(np.quantile(saving, 0.99))],
    }


def _copied(state: drivers.State) -> float:
    copy = Memcpy(state)
    timed(copy)
    return timed(copy)


def enough(saving: list[float], wanted: int) -> bool:
    """Whether all ranks have so many steps behind saves."""
    fewest = torch.tensor(len(saving))
    dist.all_reduce(fewest, op=dist.ReduceOp.MIN)
    return int(fewest) >= wanted


def foreground(asked: dict[str, Any], shared: drivers.State, state: drivers.State) -> Seconds:
    """Durable saves and loads, ours and DCP's in turn; every load is checked."""
    from tradewind.train import checkpoint

    rank, world = dist.get_rank(), dist.get_world_size()
    memory = checkpoint.Memory(
        Path(asked["memory"]), rank=rank, world=world, local_rank=rank, local_world=world
    )
    disks = {
        "ours": drivers.OursOnDisk(Path(asked["folder"], "ours")),
        "dcp": drivers.DCPOnDisk(Path(asked["folder"], "dcp")),
    }
    kinds = ("save", "load", "load_cold")
    found: Seconds = {f"{what}_{who}": [] for what in kinds for who in disks}
    found |= {name: [] for name in ("load_memory", "load_memory_verified", "load_memory_into")}
    memory.stage(0, {}, state)
    live = drivers.with_tensors(state, torch.clone)
    for step in range(1 + FOREGROUND_SAVES):
        turn: dict[str, float] = {}
        for who, disk in disks.items():
            turn[f"save_{who}"] = timed(lambda: disk.save(step, state))  # noqa: B023 - called at once
            for kind, prepare in (("load", warm), ("load_cold", evict)):
                prepare(disk.root)
                blank(live)
                turn[f"{kind}_{who}"] = timed(lambda: disk.load(live))  # noqa: B023
                check(live, state, who)
            forget(disk.root, step)
        blank(live)
        turn |= _from_memory(memory, live)
        check(live, state, "memory")
        if step > 0:
            for name, seconds in turn.items():
                found[name].append(seconds)
    memory.close()
    return found


def _from_memory(memory: Any, live: drivers.State) -> dict[str, float]:
    """Until the state can be used, until it is verified, and until it is in the tensors of the model besides."""
    loaded: list[Any] = []
    usable = timed(lambda: loaded.append(memory.load(0)))
    verified = usable + timed(memory.check)
    return {
        "load_memory": usable,
        "load_memory_verified": verified,
        "load_memory_into": verified + timed(lambda: drivers.copy_into(live, loaded.pop().own)),
    }


def warm(root: Path) -> None:
    """Have the files in the page cache, however they were written."""
    _by_first(lambda file: collections.deque(iter(lambda: file.read(1 << 22), b""), maxlen=0), root)


def evict(root: Path) -> None:
    """Have the files on the disk alone."""
    _by_first(lambda file: os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED), root)


def _by_first(work: Callable[[Any], Any], root: Path) -> None:
    dist.barrier()
    if dist.get_rank() == 0:
        for path in [path for path in root.rglob("*") if path.is_file()]:
            with path.open("rb", buffering=0) as file:
                work(file)
    dist.barrier()


def blank(state: drivers.State) -> None:
    for tensor in drivers.tensors_of(state):
        tensor.zero_()


def check(live: drivers.State, state: drivers.State, who: str) -> None:
    """A fast load of the wrong bytes is no load."""
    if not all(map(torch.equal, drivers.tensors_of(live), drivers.tensors_of(state))):
        raise RuntimeError(f"{who} loaded other values than it saved")


def forget(root: Path, step: int) -> None:
    """Remove a step's folder once all ranks are done with it: the disk has better use for the room."""
    dist.barrier()
    if dist.get_rank() == 0:
        for folder in root.glob("step-*"):
            if int(folder.name.rpartition("-")[2]) == step:
                shutil.rmtree(folder)
    dist.barrier()


def slowest(found: Seconds) -> Seconds:
    """The slowest rank's time, measurement by measurement."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, found)
    return {
        name: [max(times) for times in zip(*(one[name] for one in everyone), strict=True)] for name in found
    }


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    shared, own = drivers.states(asked["layout"], asked["bytes"], dist.get_rank(), dist.get_world_size())
    measure = background if asked["mode"] == "background" else foreground
    found = slowest(measure(asked, shared, own))
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
