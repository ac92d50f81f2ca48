"""Keeps a run's state: in memory after as many steps as can be afforded, on disk every so often."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from tradewind.errors import SpecError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import Memory
from tradewind.train.distributed import Peers
from tradewind.train.journal import Journal
from tradewind.train.random_state import random_state, set_random_state
from tradewind.train.resume import Found, newest_whole


def copied(state: Any) -> Any:
    """The same state with tensors of its own."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, state)


class Keeper:
    """Takes the state of the parts of a loop and brings it back, the same step on every worker."""

    def __init__(
        self,
        parts: Mapping[str, Any],
        data: Any,
        *,
        root: Path,
        keep: int,
        peers: Peers,
        journal: Journal,
        memory: Memory | None,
    ) -> None:
        self.memory = memory
        self.stopped = False
        """Whether the script said that its last step is done; remembered with the state."""
        self.saved: int | None = None
        """The step of the newest checkpoint on disk that this run wrote or began from."""
        self.skip = 0
        """Batches to throw away before going on, where the data has no state of its own."""
        self._parts, self._data = parts, data
        self._root, self._keep = root, keep
        self._peers, self._journal = peers, journal
        self._random: dict[str, Any] | None = None

    def restore(self) -> int:
        """Load the newest state that every worker finds whole; the step it is of, 0 when there is none."""
        started = time.monotonic()
        found = newest_whole(self._root, self._peers, self._journal, self.memory)
        if found is None:
            return 0
        self._check_parts(found)
        for name, part in self._parts.items():
            state = found.loaded.shared[name]
            # What lies in memory's images is written over some steps later, and a part may keep what it is given.
            part.load_state_dict(copied(state) if found.tier == "memory" else state)
        self._restore_data(found.loaded)
        own = found.loaded.own
        self.stopped = own["stopped"]
        # A worker the checkpoint never had keeps the generators that its script seeded.
        self._random = own["random"] if self._peers.rank < found.loaded.world else None
        self.saved = found.loaded.step if found.tier == "disk" else None
        self._journal.write(
            "resume",
            step=found.loaded.step,
            path=found.place,
            tier=found.tier,
            seconds=time.monotonic() - started,
        )
        return found.loaded.step

    def _check_parts(self, found: Found) -> None:
        if set(found.loaded.shared) != set(self._parts):
            raise SpecError(
                f"{found.place} holds {sorted(found.loaded.shared)} and this Loop was given "
                f"{sorted(self._parts)}; give it the same parts, or another checkpoint_dir to start afresh"
            )

    def _restore_data(self, loaded: checkpoint.Loaded) -> None:
        state = loaded.own["data"]
        if state is None:
            self.skip = loaded.step
            return
        if loaded.world != self._peers.world and not getattr(self._data, "elastic", False):
            raise SpecError(
                f"the checkpoint was made by {loaded.world} workers and this run has {self._peers.world}: the "
                "data's state is each worker's own; use the same number of workers, or train.Batches"
            )
        self._data.load_state_dict(state)

    def restore_random(self) -> None:
        """Put the random generators where the checkpoint had them; once, as the first step begins."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def stage(self, step: int) -> float:
        """Copy the state of a committed step into memory; the seconds it took."""
        assert self.memory is not None
        started = time.perf_counter()
        self.memory.stage(step, *self._state())
        return time.perf_counter() - started

    def write(self, step: int) -> None:
        """Commit the state to disk, and drop the checkpoints that are too many."""
        started = time.monotonic()
        shared, own = self._state()
        folder = checkpoint.save(self._root, step, shared, own, peers=self._peers)
        self.saved = step
        if self._peers.rank == 0:
            size = sum(file.stat().st_size for file in folder.iterdir())
            stall_s = time.monotonic() - started
            self._journal.write("checkpoint", step=step, path=folder, bytes=size, stall_s=stall_s)
            checkpoint.prune(self._root, keep=self._keep, step=step)

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        shared = {name: part.state_dict() for name, part in self._parts.items()}
        cursor = self._data.state_dict() if hasattr(self._data, "state_dict") else None
        return shared, {"random": random_state(), "data": cursor, "stopped": self.stopped}

    def close(self) -> None:
        """Let go of the memory tier's images, which stay."""
        if self.memory is not None:
            self.memory.close()
