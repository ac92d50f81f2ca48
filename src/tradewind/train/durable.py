"""Committed steps onto disk: in the background while they lie in memory, else while training waits."""

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tradewind.errors import TradewindError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import Memory, Saved, Saver, pace
from tradewind.train.distributed import Peers
from tradewind.train.journal import Journal

_LOG = logging.getLogger(__name__)


class Durable:
    """The checkpoints of a run. Every worker calls the same methods after the same steps."""

    def __init__(self, root: Path, *, keep: int, peers: Peers, journal: Journal) -> None:
        self.root = root
        self.saved: int | None = None
        """The step of the newest checkpoint that this run wrote or began from."""
        self.cost_s: float | None = None
        """Seconds that the newest one took to write, rests not counted."""
        self.broken: str | None = None
        """Why this worker can write nothing more in the background."""
        self._keep = keep
        self._peers, self._journal = peers, journal
        self._saver: Saver | None = None
        self._skipped = 0
        """Of savers that are closed."""
        self._stalls: dict[int, float] = {}

    def open(self, memory: Memory) -> None:
        """Make ready to write from memory; the first time, the workers meet for it."""
        if self._saver is None:
            # A group of its own, made as late as this: it is no part of a recovery.
            self._saver = Saver(self.root, memory, peers=Peers(), share=pace.SHARE, keep=self._keep)

    def begin(self, step: int, stall_s: float) -> None:
        """Write the step that was staged last, in the background; `stall_s` is what it has cost already."""
        assert self._saver is not None
        self.poll()
        started = time.perf_counter()
        if self.broken is None and self._saver.start(step):
            self._stalls[step] = stall_s + time.perf_counter() - started

    def poll(self) -> None:
        """Take in what has become of the steps that were begun: a failure is reported, and no end of training."""
        if self._saver is not None and self.broken is None:
            self._hear(self._saver, self._saver.poll)

    def settle(self) -> None:
        """Have what was begun finished, at full speed."""
        if self._saver is not None and self.broken is None:
            self._hear(self._saver, self._saver.wait)

    def _hear(self, saver: Saver, ask: Callable[[], list[Saved]]) -> None:
        try:
            done = ask()
        except TradewindError as error:
            if saver.ended:
                # When the peers are gone training ends in a moment, and says why: no need to warn of it here.
                self.broken = str(error)
            elif self._peers.rank == 0:
                self.warn("checkpoint_failed", f"{error}; training goes on, and the next one is tried")
            return
        for saved in done:
            self.cost_s = saved.seconds - saved.rested_s
            self._note(
                saved.step, saved.folder, saved.bytes, saved.seconds, self._stalls.pop(saved.step, 0.0)
            )

    def write(self, step: int, shared: dict[str, Any], own: dict[str, Any]) -> None:
        """Write the state while training waits. Raises a TradewindError when that fails."""
        started = time.monotonic()
        folder = checkpoint.save(self.root, step, shared, own, peers=self._peers)
        size = 0
        if self._peers.rank == 0:
            size = sum(file.stat().st_size for file in folder.iterdir())
            checkpoint.prune(self.root, keep=self._keep, step=step)
        self.cost_s = seconds = time.monotonic() - started
        self._note(step, folder, size, seconds, seconds)

    def _note(self, step: int, folder: Path, size: int, seconds: float, stall_s: float) -> None:
        self.saved = step
        if self._peers.rank == 0:
            self._journal.write(
                "checkpoint",
                step=step,
                path=folder,
                bytes=size,
                seconds=seconds,
                stall_s=stall_s,
                skipped=self._skipped + (self._saver.skipped if self._saver is not None else 0),
            )

    def warn(self, what: str, why: str) -> None:
        """Tell who looks after the run, in the log and as an event."""
        _LOG.warning("tradewind: %s: %s", what.replace("_", " "), why)
        self._journal.write("warning", what=what, why=why)

    def close(self) -> None:
        """Finish what was begun, and let go of the thread that writes."""
        self.settle()
        if self._saver is not None:
            with contextlib.suppress(TradewindError):  # It is broken, which was heard above.
                self._saver.close()
        self._forget()

    def abandon(self) -> None:
        """Let go of the thread that writes, whatever becomes of what it was writing, and ask no peer."""
        if self._saver is not None:
            self._saver.abandon()
        self._forget()

    def _forget(self) -> None:
        self._skipped += self._saver.skipped if self._saver is not None else 0
        self._saver, self.broken = None, None
        self._stalls.clear()
