"""The speed benchmark's contenders: saves that go on in the background, and saves and loads that do not.

Every contender has the same state, `shared` by all ranks and each rank's `own`, and is set up as its
documentation advises for host memory: staging buffers that are kept and warm, plans cached, a folder a
step.
"""

import importlib
import sys
import unittest.mock
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from bench.peers.installed import installed

State = dict[str, Any]


class Driver(Protocol):
    """One rank's side of a contender."""

    def save(self, step: int, shared: State, own: State) -> None:
        """Begin a save; returns as soon as the tensors may be changed."""

    def done(self) -> bool:
        """Whether the save that was begun is committed; raises when it failed."""

    def wait(self) -> None:
        """Until the save that was begun is committed, at full speed."""

    def close(self) -> None:
        """Give back memory and processes."""


def states(layout: str, size: int, rank: int, world: int) -> tuple[State, State]:
    """`size` bytes of state, shared and own: `alike` on all ranks, or `sharded` evenly over them."""
    if layout == "alike":
        return state_of(size, seed=world), {"position": rank}
    return {"position": 0}, state_of(size // world, seed=rank)


def state_of(size: int, seed: int) -> State:
    """About `size` bytes as a model and its optimizer hold them: few large tensors, many small ones."""
    draw = torch.Generator().manual_seed(seed)
    large, middle = 16, 64
    state: State = {f"small{number}": torch.rand(1024, generator=draw) for number in range(100)}
    for number in range(middle):
        state[f"middle{number}"] = _filled(size // 4 // middle, draw)
    for number in range(large):
        state[f"large{number}"] = _filled(size * 3 // 4 // large, draw)
    return state | {"step": 0}


def _filled(size: int, draw: torch.Generator) -> torch.Tensor:
    # A megabyte of noise, repeated: drawing gigabytes takes longer than saving them.
    noise = torch.rand(1 << 18, generator=draw)
    return noise.repeat(-(-size // noise.nbytes))[: size // noise.itemsize].clone()


def finished(written: Any) -> bool:
    """Whether a future has its result; raises its error."""
    if not written.done():
        return False
    written.result()
    return True


def with_tensors(state: State, change: Callable[[torch.Tensor], torch.Tensor]) -> State:
    """The same state with every tensor changed."""
    return {
        name: change(value) if isinstance(value, torch.Tensor) else value for name, value in state.items()
    }


def tensors_of(state: State) -> list[torch.Tensor]:
    return [value for value in state.values() if isinstance(value, torch.Tensor)]


class Tradewind:
    """Ours: staged into shared memory, saved from there in the background."""

    def __init__(self, root: Path, memory: Path) -> None:
        from tradewind.train import checkpoint

        rank, world = dist.get_rank(), dist.get_world_size()
        self._memory = checkpoint.Memory(memory, rank=rank, world=world, local_rank=rank, local_world=world)
        self._saver = checkpoint.Saver(root, self._memory)

    def save(self, step: int, shared: State, own: State) -> None:
        self._memory.stage(step, shared, own)
        if not self._saver.start(step):
            raise RuntimeError(f"step {step} was skipped: the one before is still being written")

    def done(self) -> bool:
        return bool(self._saver.poll())

    def wait(self) -> None:
        self._saver.wait()

    def close(self) -> None:
        self._saver.close()
        self._memory.close()


class TradewindPageable(Tradewind):
    """Ours without locked pages: the driver copies through a buffer of its own."""

    def save(self, step: int, shared: State, own: State) -> None:
        with unittest.mock.patch("tradewind.train.checkpoint.pages.lock", return_value=False):
            super().save(step, shared, own)


class TorchCheckpointing:
    """torch_checkpointing 0.1.1, asynchronous, its staging warmed by its own `prewarm_staging`.

    It does not know what ranks have alike: rank 0 saves that for all, as a careful user would have it.
    """

    def __init__(self, root: Path, memory: Path) -> None:
        sys.path.insert(0, str(installed("torch-checkpointing==0.1.1")))
        api = importlib.import_module("torch_checkpointing")
        config = importlib.import_module("torch_checkpointing.config")
        files = importlib.import_module("torch_checkpointing.storage.filesystem")
        self.root = root
        self._manager = api.CheckpointManager(
            api.CheckpointManager.Config(
                save=config.AsyncCheckpointSaverConfig(),
                # ext4 refuses the unaligned direct writes that it makes by default.
                storage_config=files.LocalFileSystemStorageConfig(use_direct_io=False),
            )
        )
        self._warm = False
        self._written: Any = None

    def save(self, step: int, shared: State, own: State) -> None:
        payload = {"own": own} | ({"shared": shared} if dist.get_rank() == 0 else {})
        if not self._warm:
            self._manager.prewarm_staging(payload)
            self._warm = True
        self._written = self._manager.save(str(self.root / f"step-{step}"), payload)
        with self._manager.lock():  # what its documentation puts around optimizer.step()
            pass

    def done(self) -> bool:
        return finished(self._written)

    def wait(self) -> None:
        self._written.result()

    def close(self) -> None:
        self._manager.close()


class DCP:
    """torch.distributed.checkpoint's async_save with a stager that keeps its buffers, and cached plans."""

    def __init__(self, root: Path, memory: Path, *, process: bool, gpu: bool = False) -> None:
        self._api = importlib.import_module("torch.distributed.checkpoint")
        saver = importlib.import_module("torch.distributed.checkpoint.state_dict_saver")
        staging = importlib.import_module("torch.distributed.checkpoint.staging")
        planner = importlib.import_module("torch.distributed.checkpoint.default_planner")
        kinds = saver.AsyncCheckpointerType
        self.root = root
        self._kind = kinds.PROCESS if process else kinds.THREAD
        options = staging.StagingOptions(
            use_pinned_memory=gpu,  # needs CUDA, as do the two below
            use_shared_memory=process,
            use_async_staging=False,  # with it a save returns sooner, and its tensors may be changed no sooner
            use_non_blocking_copy=gpu,
        )
        self._stager = staging.DefaultStager(options)
        # torch 2.11 lets go of the buffers after every save, and fails at the next (pytorch/pytorch#183413).
        buffers = self._stager._state_dict_stager
        self._let_go, buffers.close = buffers.close, lambda: None
        self._planner = planner.DefaultSavePlanner(enable_plan_caching=True)
        self._written: Any = None

    def save(self, step: int, shared: State, own: State) -> None:
        self._written = self._api.async_save(
            {"shared": shared, f"rank{dist.get_rank()}": own},
            storage_writer=self._api.FileSystemWriter(self.root / f"step-{step}", sync_files=True),
            planner=self._planner,
            async_checkpointer_type=self._kind,
            async_stager=self._stager,
        )

    def done(self) -> bool:
        return finished(self._written)

    def wait(self) -> None:
        self._written.result()

    def close(self) -> None:
        self._stager.close()
        self._let_go()


DRIVERS: dict[str, Callable[[Path, Path], Driver]] = {
    "tradewind": Tradewind,
    "torch_checkpointing": TorchCheckpointing,
    "dcp_thread": lambda root, memory: DCP(root, memory, process=False),
    "dcp_process": lambda root, memory: DCP(root, memory, process=True),
}
ON_GPU: dict[str, Callable[[Path, Path], Driver]] = {
    "tradewind": Tradewind,
    "tradewind_pageable": TradewindPageable,
    "dcp_thread": lambda root, memory: DCP(root, memory, process=False, gpu=True),
    "dcp_process": lambda root, memory: DCP(root, memory, process=True, gpu=True),
}


class OursOnDisk:
    """Our save and load, in the foreground."""

    def __init__(self, root: Path) -> None:
        from tradewind.train import checkpoint
        from tradewind.train.distributed import Peers

        self._api, self._peers, self.root = checkpoint, Peers(), root

    def save(self, step: int, state: State) -> None:
        self._folder = self._api.save(self.root, step, {}, state, peers=self._peers)

    def load(self, state: State) -> None:
        # As the loop does: together the ranks check every byte.
        loaded = self._api.load(self._folder, dist.get_rank(), check="together", into=({}, state))
        state |= loaded.own


class DCPOnDisk:
    """DCP's save, files synced, with cached plans, and its load into the tensors that are there."""

    def __init__(self, root: Path) -> None:
        self._api = importlib.import_module("torch.distributed.checkpoint")
        planner = importlib.import_module("torch.distributed.checkpoint.default_planner")
        self._planner, self.root = planner.DefaultSavePlanner(enable_plan_caching=True), root

    def save(self, step: int, state: State) -> None:
        self._folder = self.root / f"step-{step}"
        writer = self._api.FileSystemWriter(self._folder, sync_files=True)
        self._api.save({f"rank{dist.get_rank()}": state}, storage_writer=writer, planner=self._planner)

    def load(self, state: State) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = self._api.FileSystemReader(self._folder)
            self._api.load({f"rank{dist.get_rank()}": state}, storage_reader=reader)


def copy_into(state: State, loaded: State) -> None:
    """What a trainer does with a state it was given: into the tensors that the model has."""
    for name, value in loaded.items():
        if isinstance(value, torch.Tensor):
            state[name].copy_(value)
        else:
            state[name] = value
