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
QUIET_STEPS = 200


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
    """A training step of some 20 ms: matrix products, then new values in part of the state."""

    def __init__(self, state: drivers.State) -> None:
        self._weight = torch.rand(512, 512) / 256
        self._input = torch.rand(512, 512)
        self._state = next(iter(drivers.tensors_of(state)))
        self._products = 1
        while self._once() < 0.02:
            self._products += 1

    def _once(self) -> float:
        started = time.perf_counter()
        value = self._input
        for _ in range(self._products):
            value = value @ self._weight
        self._state.add_(1e-6)
        return time.perf_counter() - started

    def until(self, done: Callable[[], bool]) -> list[float]:
        """Seconds of each step until something is done."""
        times: list[float] = []
        while not done():
            times.append(self._once())
        return times

    def quiet(self) -> list[float]:
        """Seconds of each of a few steps with nothing behind them."""
        return [self._once() for _ in range(QUIET_STEPS)]


def background(asked: dict[str, Any], state: drivers.State) -> Seconds:
    """Saves of one contender: warm-ups, then saves with training steps behind them."""
    root = Path(asked["folder"], asked["driver"])
    driver = drivers.DRIVERS[asked["driver"]](root, Path(asked["memory"]))
    copy, steps = Memcpy(state), Steps(state)
    found: Seconds = {"memcpy": [], "stall": [], "total": [], "p99_quiet": [], "p99_saving": []}
    for step in range(asked["warm"] + asked["saves"]):
        if step < asked["warm"]:
            driver.save(step, state)
            driver.wait()
        else:
            for name, seconds in _saved_behind(driver, step, state, copy, steps).items():
                found[name].append(seconds)
        forget(root, step)
    driver.close()
    return found


def _saved_behind(
    driver: drivers.Driver, step: int, state: drivers.State, copy: Memcpy, steps: Steps
) -> dict[str, float]:
    """Quiet steps, a memory copy, the stall of a save, and steps until it is committed."""
    quiet = steps.quiet()
    timed(copy)  # the steps have had the caches since
    copied = timed(copy)
    stall = timed(lambda: driver.save(step, state))
    saving = steps.until(driver.done)
    return {
        "memcpy": copied,
        "stall": stall,
        "total": stall + sum(saving),
        "p99_quiet": float(np.quantile(quiet, 0.99)),
        "p99_saving": float(np.quantile(saving, 0.99)),
    }


def foreground(asked: dict[str, Any], state: drivers.State) -> Seconds:
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
    found: Seconds = {f"{what}_{who}": [] for what in kinds for who in disks} | {"load_memory": []}
    memory.stage(0, {}, state)
    live = {
        name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()
    }
    for step in range(1 + asked["saves"]):
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
        turn["load_memory"] = timed(lambda: drivers.copy_into(live, memory.load(0).own))
        check(live, state, "memory")
        if step > 0:
            for name, seconds in turn.items():
                found[name].append(seconds)
    memory.close()
    return found


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
    state = drivers.state_of(asked["bytes"], dist.get_rank())
    measure = background if asked["mode"] == "background" else foreground
    found = slowest(measure(asked, state))
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
