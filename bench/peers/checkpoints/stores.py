"""The crash corpus's contenders: each keeps small checkpoints in `root` and restores the newest it can.

A user of each would write these few lines: save a step, drop all but two, and after a crash take
the newest checkpoint that is complete by the library's own mark, or the one before if that raises.
"""

import functools
import importlib
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from bench.peers.installed import installed
from tradewind.errors import IntegrityError

State = dict[str, Any]
KEEP = 2


@dataclass(frozen=True)
class Restored:
    """What came back, `own` by rank, and what was said about checkpoints that were passed over."""

    step: int | None
    shared: State | None = None
    own: list[State] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Store(Protocol):
    """One way to keep checkpoints."""

    def save(self, step: int, shared: State, own: State) -> None:
        """Commit a checkpoint of all ranks; every rank calls it."""

    def prune(self, step: int) -> None:
        """Drop all but the newest `KEEP` checkpoints up to this step."""

    def restore(self, world: int) -> Restored:
        """The newest checkpoint that can be had, all ranks' parts of it."""


def example(step: int, rank: int) -> tuple[State, State]:
    """A small training state, `shared` and a rank's `own`, that is another one at every step."""
    draw = torch.Generator().manual_seed(1000 * step + rank)
    same = torch.Generator().manual_seed(1000 * step + 999)
    shared = {
        "weight": torch.randn(64, 96, generator=same),
        "bias": torch.randn(96, generator=same).bfloat16(),
        "step": step,
    }
    own = {
        "exp_avg": torch.randn(64, 96, generator=draw),
        "exp_avg_sq": torch.rand(64, 96, generator=draw),
        "random": torch.randint(0, 256, (512,), generator=draw, dtype=torch.uint8),
        "position": 17 * step + rank,
    }
    return shared, own


def blank(state: State) -> State:
    """A place to load into: the same shapes, other values."""
    return {
        key: torch.full_like(value, 1) if isinstance(value, torch.Tensor) else -1
        for key, value in state.items()
    }


class Tradewind:
    """Ours."""

    def __init__(self, root: Path) -> None:
        from tradewind.train import checkpoint
        from tradewind.train.distributed import Peers

        self.root, self._api, self._peers = root, checkpoint, Peers()

    def save(self, step: int, shared: State, own: State) -> None:
        self._api.save(self.root, step, shared, own, peers=self._peers)

    def prune(self, step: int) -> None:
        self._api.prune(self.root, keep=KEEP, step=step)

    def restore(self, world: int) -> Restored:
        complaints: list[str] = []
        found = self._api.latest(self.root, lambda _, error: complaints.append(str(error)))
        if found is None:
            return Restored(None, complaints=complaints)
        loaded = [self._api.load(found, rank) for rank in range(world)]
        return Restored(loaded[0].step, loaded[0].shared, [part.own for part in loaded], complaints)


class TradewindBackground(Tradewind):
    """Ours as the training loop drives it: staged in memory, written from there by the saver's thread."""

    def save(self, step: int, shared: State, own: State) -> None:
        memory, saver = self._started()
        memory.stage(step, shared, own)
        saver.save(step)

    @functools.cache  # noqa: B019 - a store lives as long as its process
    def _started(self) -> tuple[Any, Any]:
        rank, world = self._peers.rank, self._peers.world
        memory = self._api.Memory(
            self.root.parent / "memory", rank=rank, world=world, local_rank=rank, local_world=world
        )
        return memory, self._api.Saver(self.root, memory, peers=self._peers)


class TradewindMemory:
    """Our images in shared memory. It stages every rank's part, of one host, and there is nothing to prune."""

    def __init__(self, root: Path) -> None:
        from tradewind.train import checkpoint

        self.root, self._memory = root, checkpoint.Memory

    def stage(self, step: int, world: int) -> None:
        for rank in range(world):
            memory = self._at(rank, world)
            memory.stage(step, *example(step, rank))
            memory.settle()
            memory.close()

    def restore(self, world: int) -> Restored:
        memories = [self._at(rank, world) for rank in range(world)]
        complaints = []
        for step in reversed(memories[0].steps()):
            try:
                # Clones: what is loaded lies in the image.
                loaded = [memory.load(step) for memory in memories]
                own = [_cloned(part.own) for part in loaded]
                return Restored(step, _cloned(loaded[0].shared), own, complaints)
            except IntegrityError as error:
                complaints.append(str(error))
        return Restored(None, complaints=complaints)

    def _at(self, rank: int, world: int) -> Any:
        return self._memory(self.root, rank=rank, world=world, local_rank=rank, local_world=world)


def _cloned(state: State) -> State:
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()
    }


class Folders:
    """What the peers leave to their user: a folder a step, and which of them to take."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, step: int) -> Path:
        return self.root / f"step-{step}"

    def committed(self) -> list[Path]:
        """Complete checkpoints by the library's own mark, newest first."""
        found = [path for path in self.root.glob("step-*") if path.is_dir() and self.complete(path)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)

    def complete(self, folder: Path) -> bool:
        return True

    def prune(self, step: int) -> None:
        for folder in self.committed()[KEEP:]:
            shutil.rmtree(folder, ignore_errors=True)

    def restore(self, world: int) -> Restored:
        complaints: list[str] = []
        for folder in self.committed():
            try:
                shared, own = self.load(folder, world)
            except Exception as error:  # noqa: BLE001 - a refusal, whatever its type; the judge reads it
                complaints.append(f"{type(error).__name__}: {error}")
                continue
            return Restored(int(folder.name.removeprefix("step-")), shared, own, complaints)
        return Restored(None, complaints=complaints)

    def load(self, folder: Path, world: int) -> tuple[State, list[State]]:
        raise NotImplementedError


class DCP(Folders):
    """torch.distributed.checkpoint, files synced; a checkpoint is complete when `.metadata` is there."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._dcp = importlib.import_module("torch.distributed.checkpoint")
        self._dist = importlib.import_module("torch.distributed")

    def save(self, step: int, shared: State, own: State) -> None:
        rank = self._dist.get_rank() if self._dist.is_initialized() else 0
        writer = self._dcp.FileSystemWriter(self.folder(step), sync_files=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one process without a group, or a folder left by a crash
            self._dcp.save({"shared": shared, f"rank{rank}": own}, storage_writer=writer)

    def complete(self, folder: Path) -> bool:
        return (folder / ".metadata").exists()

    def load(self, folder: Path, world: int) -> tuple[State, list[State]]:
        target = {"shared": blank(example(0, 0)[0])}
        target |= {f"rank{rank}": blank(example(0, rank)[1]) for rank in range(world)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = self._dcp.FileSystemReader(folder)
            try:
                self._dcp.load(target, storage_reader=reader, no_dist=True)
            except self._dcp.CheckpointException as error:  # derives from BaseException
                raise RuntimeError(str(error)) from error
        return target["shared"], [target[f"rank{rank}"] for rank in range(world)]


class TorchCheckpointing(Folders):
    """torch_checkpointing 0.1.1, saved in this process; a checkpoint is complete when its folder has its name.

    Direct I/O is off, as its troubleshooting page says: ext4 refuses the unaligned writes it makes.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        sys.path.insert(0, str(installed("torch-checkpointing==0.1.1")))
        self._api = importlib.import_module("torch_checkpointing")
        self._layout = importlib.import_module("torch_checkpointing.checkpoint_layout")
        self._config = importlib.import_module("torch_checkpointing.config")
        self._files = importlib.import_module("torch_checkpointing.storage.filesystem")
        self._dist = importlib.import_module("torch.distributed")
        self._savers: dict[int, Any] = {}

    def save(self, step: int, shared: State, own: State) -> None:
        rank = self._dist.get_rank() if self._dist.is_initialized() else 0
        payload = {f"own{rank}": own} | ({"shared": shared} if rank == 0 else {})
        self._manager(rank + 1).save(str(self.folder(step)), payload)

    def load(self, folder: Path, world: int) -> tuple[State, list[State]]:
        target: dict[str, State] = {"shared": blank(example(0, 0)[0])}
        target |= {f"own{rank}": blank(example(0, rank)[1]) for rank in range(world)}
        loaded = self._manager(world).load(str(folder), into=target, strict=True)
        return loaded["shared"], [loaded[f"own{rank}"] for rank in range(world)]

    def _manager(self, world: int) -> Any:
        if world not in self._savers:
            layout, serialized = self._layout.LayoutInfo, self._layout.TorchSerialization
            names = ["shared", *(f"own{rank}" for rank in range(world))]
            items = {
                name: self._api.ItemSpec(layout=layout(f"{name}.pt", serialized()), required=False)
                for name in names
            }
            config = self._api.CheckpointManager.Config(
                items=items,
                save=self._config.SyncCheckpointSaverConfig(),
                storage_config=self._files.LocalFileSystemStorageConfig(use_direct_io=False),
            )
            self._savers[world] = self._api.CheckpointManager(config)
        return self._savers[world]


STORES: dict[str, Callable[[Path], Any]] = {
    "tradewind": Tradewind,
    "tradewind_background": TradewindBackground,
    "tradewind_memory": TradewindMemory,
    "dcp": DCP,
    "torch_checkpointing": TorchCheckpointing,
}
