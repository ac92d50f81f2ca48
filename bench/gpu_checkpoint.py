"""Checkpoints of 2 GB that lie on a GPU: how long training stands still, and how fast state comes back to the device.

One process, one GPU. A stall ends when the trainer may change its tensors again. Contenders take turns: ours, ours
without locked pages, PyTorch's DCP with both of its asynchronous checkpointers, whose stager has pinned memory that it
keeps, and a plain copy of the same tensors into pinned memory. What is written in the background has ended before the
next begins. `lock_s` is what a mapping of as many bytes takes to be locked, once for each of two. Loads put a state into
the tensors that are on the GPU; every one is compared with what was saved.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist

from bench.harness import Figure, Options, interleave, main, ratio, say
from bench.peers.checkpoints import drivers
from tradewind.train import checkpoint
from tradewind.train.checkpoint.slot import Slot

NAME = "gpu-checkpoint"
FULL, QUICK = 2 << 30, 32 << 20
WARM_SAVES = 2


def measure(options: Options) -> Mapping[str, Figure]:
    """Stalls of saves, and loads, on the first GPU."""
    if not torch.cuda.is_available():
        raise SystemExit(f"{NAME}: not measured: torch sees no GPU here")
    say(f"on cuda:0, {torch.cuda.get_device_name(0)}")
    return compare(torch.device("cuda:0"), QUICK if options.quick else FULL, options.repeats, drivers.ON_GPU)


def compare(
    device: torch.device,
    size: int,
    repeats: int,
    makers: Mapping[str, Callable[[Path, Path], drivers.Driver]],
) -> Mapping[str, Figure]:
    """Time every contender's saves of so many bytes on a device, and what ours and DCP's take to come back."""
    state = drivers.with_tensors(drivers.state_of(size, seed=0), lambda tensor: tensor.to(device))
    with tempfile.TemporaryDirectory(prefix="gpu-checkpoint-") as disk, shared_memory() as memory, group():
        saves = {name: Saves(name, make, Path(disk), memory, state) for name, make in makers.items()}
        copy = PlainCopy(state)
        stalls = interleave(
            {name: save.stall for name, save in saves.items()} | {"copy": copy}, repeats, WARM_SAVES
        )
        backgrounds = {name: save.background_s[-repeats:] for name, save in saves.items()}
        for save in saves.values():
            save.close()
        loads = interleave(loaders(state, Path(disk), memory), repeats)
        locks = [
            lock_s(memory / "locked", size, device) for _ in range(repeats if device.type == "cuda" else 0)
        ]
    found = {f"stall_s_{name}": Figure.of(seconds, "s") for name, seconds in stalls.items()}
    found |= {f"background_s_{name}": Figure.of(seconds, "s") for name, seconds in backgrounds.items()}
    found |= {f"{name}_s": Figure.of(seconds, "s") for name, seconds in loads.items()}
    found |= {"lock_s": Figure.of(locks, "s")} if locks else {}
    others = stalls.keys() - {"tradewind"}
    found |= {f"stall_ratio_{name}": ratio(stalls["tradewind"], stalls[name]) for name in sorted(others)}
    found["load_speedup_dcp"] = ratio(loads["load_dcp"], loads["load_disk"])
    found["memory_restore_ratio_disk"] = ratio(loads["load_memory"], loads["load_disk"])
    return found


class Saves:
    """One contender, save after save."""

    def __init__(
        self,
        name: str,
        make: Callable[[Path, Path], drivers.Driver],
        disk: Path,
        memory: Path,
        state: drivers.State,
    ) -> None:
        self._root = disk / name
        self._driver = make(self._root, memory / name)
        self._state = state
        self._step = 0
        self.background_s: list[float] = []

    def stall(self) -> float:
        """The seconds of the next save until its tensors may be changed; returns once it is committed."""
        self._step += 1
        settle()
        started = perf_counter()
        self._driver.save(self._step, {}, self._state)
        stalled_s = perf_counter() - started
        self._driver.wait()
        self.background_s.append(perf_counter() - started)
        for folder in self._root.glob("step-*"):
            shutil.rmtree(folder)
        return stalled_s

    def close(self) -> None:
        """Let go of memory and processes."""
        self._driver.close()


class PlainCopy:
    """The yardstick: every tensor into pinned memory that is there, all at once."""

    def __init__(self, state: drivers.State) -> None:
        self._from = drivers.tensors_of(state)
        pin = self._from[0].is_cuda
        self._to = [torch.empty(t.shape, dtype=t.dtype, pin_memory=pin) for t in self._from]

    def __call__(self) -> float:
        settle()
        started = perf_counter()
        for target, source in zip(self._to, self._from, strict=True):
            target.copy_(source, non_blocking=True)
        settle()
        return perf_counter() - started


def lock_s(path: Path, size: int, device: torch.device) -> float:
    """Seconds until the pages of a slot are locked that are all there already."""
    slot = Slot(path)
    slot.begin(size)
    slot.touch()
    started = perf_counter()
    slot.lock_pages(device)
    seconds = perf_counter() - started
    slot.discard()
    return seconds


def loaders(state: drivers.State, disk: Path, memory: Path) -> Mapping[str, Callable[[], float]]:
    """Ours from memory and disk, and DCP from disk, into tensors of the device."""
    live = drivers.with_tensors(state, torch.clone)
    staged = checkpoint.Memory(memory / "tradewind", rank=0, world=1, local_rank=0, local_world=1)
    ours, dcp = drivers.OursOnDisk(disk / "loads-ours"), drivers.DCPOnDisk(disk / "loads-dcp")
    for saver in (ours, dcp):
        saver.save(1, state)

    def from_memory() -> None:
        drivers.copy_into(live, staged.load(staged.steps()[-1]).own)
        staged.check()

    def from_disk() -> None:
        loaded = dict(live)
        ours.load(loaded)  # into tensors of host memory; what is for a GPU comes as one of host memory
        drivers.copy_into(live, loaded)

    def timed(name: str, load: Callable[[], object]) -> float:
        for tensor in drivers.tensors_of(live):
            tensor.zero_()
        settle()
        started = perf_counter()
        load()
        settle()
        seconds = perf_counter() - started
        if not all(map(torch.equal, drivers.tensors_of(live), drivers.tensors_of(state))):
            raise RuntimeError(f"{name} loaded other values than were saved")
        return seconds

    return {
        "load_memory": lambda: timed("load_memory", from_memory),
        "load_disk": lambda: timed("load_disk", from_disk),
        "load_dcp": lambda: timed("load_dcp", lambda: dcp.load(live)),
    }


def settle() -> None:
    """Wait for what the GPU was given to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextlib.contextmanager
def group() -> Iterator[None]:
    """A process group of this process alone, which DCP's background process asks for."""
    # A folder: the file in it is removed by whoever leaves the group last.
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


@contextlib.contextmanager
def shared_memory() -> Iterator[Path]:
    """A folder in memory."""
    with tempfile.TemporaryDirectory(prefix="gpu-checkpoint-", dir="/dev/shm") as folder:
        yield Path(folder)


if __name__ == "__main__":
    main(NAME, measure, packages=["torch"])
