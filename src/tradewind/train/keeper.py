"""Keeps a run's state: in memory after as many steps as can be afforded, on disk every so often."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradewind.errors import SpecError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import Memory, NoRoomError
from tradewind.train.checkpoint.mirror import FAILED, IDLE, SENDING
from tradewind.train.distributed import Peers
from tradewind.train.durable import Durable
from tradewind.train.heal import heal, mirror_of_environment
from tradewind.train.journal import Journal
from tradewind.train.random_state import random_state, set_random_state
from tradewind.train.resume import Found, newest_whole
from tradewind.train.sharding import copied, fitted, mesh_of

ALL, NO_MIRROR, NO_BACKGROUND, NO_MEMORY = range(4)
"""What is done without, each with those before it: the next host's memory, a third image for writing in the
background, memory."""
_MEANING = {
    NO_MIRROR: "no other host has a copy of this one's memory",
    NO_BACKGROUND: "checkpoints are written while training waits",
    NO_MEMORY: "nothing is kept in memory, and a worker that dies costs the steps since the last checkpoint",
}


class Keeper:
    """Takes the state of the parts of a loop and brings it back, the same step on every worker.

    A worker that finds no room in memory `wants` to do without some of it. The workers tell each other
    and go by the one that wants most, from the same step on: see `agree`.
    """

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
        self._mirror, no_mirror = mirror_of_environment(memory, peers)
        self.wants = NO_MEMORY if memory is None else NO_MIRROR if self._mirror is None else ALL
        """What this worker has to do without."""
        self.stopped = False
        """Whether the script said that its last step is done; remembered with the state."""
        self.skip = 0
        """Batches to throw away before going on, where the data has no state of its own."""
        self._parts, self._data = parts, data
        self._peers, self._journal = peers, journal
        self._disk = Durable(root, keep=keep, peers=peers, journal=journal)
        self._level = self.wants
        self._why = ""
        self._staged: tuple[int, float] | None = None
        self._random: dict[str, Any] | None = None
        if no_mirror is not None and peers.rank == 0:
            self._disk.warn("mirror_failed", f"{no_mirror}; {_MEANING[NO_MIRROR]}")

    def restore(self) -> int:
        """Load the newest state that every worker finds whole; the step it is of, 0 when there is none."""
        started = time.monotonic()
        mesh = mesh_of(self._parts.values())
        fetched = self._heal()
        found = newest_whole(self._disk.root, self._peers, self._journal, self.memory, mesh, self._shared)
        if found is None:
            return 0
        self._check_parts(found)
        for name, part in self._parts.items():
            state = found.loaded.shared[name]
            # What lies in memory's images is written over some steps later, and a part may keep what it is given.
            state = copied(state) if found.tier == "memory" else state
            part.load_state_dict(state if mesh is None else fitted(state, part))
        self._restore_data(found.loaded)
        own = found.loaded.own
        self.stopped = own["stopped"]
        # A worker the checkpoint never had keeps the generators that its script seeded.
        self._random = own["random"] if self._peers.rank < found.loaded.world else None
        self._disk.saved = found.loaded.step if found.tier == "disk" else None
        self._journal.write(
            "resume",
            step=found.loaded.step,
            path=found.place,
            tier="peer" if found.tier == "memory" and found.loaded.step == fetched else found.tier,
            seconds=time.monotonic() - started,
        )
        return found.loaded.step

    def _heal(self) -> int | None:
        """Get from other hosts what this one lacks; the step of it."""
        if self._mirror is None or self.memory is None:
            return None
        fetched, why = heal(self._disk.root, self.memory, self._mirror, self._peers)
        if why is not None:
            self._disk.warn("mirror_failed", why)
        return fetched

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

    def agree(self, level: int) -> bool:
        """Do without as much as the worker that has to do without most; whether that is news.

        Every worker calls it after the same step. What had been begun is on disk when it returns.
        """
        if level <= self._level:
            return False
        self._level = self.wants = level
        self._close_mirror()
        self._disk.close()
        if self._peers.rank == 0:
            why = self._why or "another worker has no room in memory"
            self._disk.warn("less_memory", f"{why}; from now on {_MEANING[level]}")
        if level == NO_MEMORY and self.memory is not None:
            self.memory.clear()
            self.memory = None
        return True

    def stage(self, step: int) -> float | None:
        """Copy the state of a committed step into memory; the seconds it took, None when there was no room."""
        assert self.memory is not None
        started = time.perf_counter()
        try:
            self.memory.stage(step, *self._state())
        except NoRoomError as error:
            self.wants, self._why = self._level + 1, str(error)
            return None
        seconds = time.perf_counter() - started
        self._staged = (step, seconds)
        return seconds

    def checkpoint(self, step: int) -> None:
        """Get the state of this step onto disk, while training goes on if the step is staged."""
        if self._level > NO_MIRROR or self.memory is None:
            self._write(step)
            return
        self._disk.open(self.memory)
        if self._staged is not None and self._staged[0] == step:
            self._disk.begin(step, self._staged[1])

    def look(self) -> None:
        """See what has become of what is written and sent in the background."""
        self._disk.poll()
        if self._disk.broken is not None and self._level < NO_BACKGROUND:
            self.wants, self._why = NO_BACKGROUND, self._disk.broken
        why = self._mirror.failure() if self._mirror is not None else None
        if why is not None:
            self._disk.warn("mirror_failed", f"{why}; training goes on, and the next one is tried")

    @property
    def mirrors(self) -> bool:
        """Whether images go to the next host: the same on all workers once they have agreed."""
        return self._level < NO_MIRROR

    @property
    def mirror_state(self) -> int:
        """Whether this worker's last image is on its way to the next host, is there, or is not."""
        return SENDING if self._mirror is None else self._mirror.state

    def mirror(self, step: int, state: int, *, wait: bool) -> None:
        """Send what was staged after this step to the next host.

        `state` is the largest of the workers' at the step before; while it is SENDING, nothing is sent. With `wait`
        the one before is waited for, on all workers, so that no host's loss costs more than what was done since.
        """
        if self._mirror is None:
            return
        if wait:
            state = self._peers.largest(self._peers.start_largest([self._mirror.finish()]))[0]
        if state != SENDING:
            staged = self._staged is not None and self._staged[0] == step
            self._mirror.start(step if staged else None, failed=state == FAILED)

    def secure(self, step: int) -> str:
        """Stage this step and wait until the next host has it; the tier where all workers' state is then.

        Every worker calls it. `memory` outlives the worker, `peer` the host; "" where there is neither.
        """
        staged = self.memory is not None and self.stage(step) is not None
        if self._mirror is not None:
            self.mirror(step, IDLE, wait=True)
        sent = self._mirror is not None and self._mirror.finish() == IDLE
        reached = self._peers.gather((staged, sent))
        return (
            "peer" if all(sent for _, sent in reached) else "memory" if all(own for own, _ in reached) else ""
        )

    def write_no_more(self) -> None:
        """Give up what is being written to disk: there is no time for it. Every worker calls it."""
        self._disk.abandon()

    @property
    def disk_s(self) -> float | None:
        """How long the last checkpoint took on its way to disk, without rests; None before the first."""
        return self._disk.cost_s

    def _close_mirror(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
        self._mirror = None

    def finish(self, step: int) -> bool:
        """Have the state of this step on disk; whether anything was left to do. An error if it cannot be.

        Every worker calls it, and afterwards no thread writes.
        """
        began_with = self._disk.saved
        self._disk.close()
        if not all(self._peers.gather(self._disk.saved == step)):
            self._write(step)
        return self._disk.saved != began_with

    def _write(self, step: int) -> None:
        self._disk.write(step, *self._state())

    def settle(self) -> None:
        """Finish what was begun; every worker calls it."""
        self._disk.close()

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        cursor = self._data.state_dict() if hasattr(self._data, "state_dict") else None
        return self._shared(), {"random": random_state(), "data": cursor, "stopped": self.stopped}

    def _shared(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def close(self) -> None:
        """Let go of the threads that write and send, then of memory's images, which stay; asks no peer."""
        self._disk.abandon()
        self._close_mirror()
        if self.memory is not None:
            self.memory.close()
