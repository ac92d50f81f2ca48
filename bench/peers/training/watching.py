"""The driver's side of the stamps: wait until a worker has done something, without asking the clock."""

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from bench.peers.training.stamps import Stamp
from tradewind.agent.journal import LineTail
from tradewind.agent.watch import FolderWatch


class Late(Exception):
    """What was waited for did not happen in time, or cannot happen any more."""


class Watching:
    """Every stamp of both ranks, in `seen` as far as it was read."""

    def __init__(self, folder: Path, ranks: int = 2) -> None:
        folder.mkdir(parents=True)
        self.seen: list[Stamp] = []
        self._tails = {rank: LineTail(folder / f"rank{rank}") for rank in range(ranks)}
        self._folder = FolderWatch()
        self._folder.add(folder)
        self.needed: list[int] = []
        """Descriptors (pidfds) of processes without which nothing will be stamped."""

    def read(self) -> list[Stamp]:
        """What was stamped since the last read, by time."""
        self._folder.drain()
        new = [Stamp.parse(rank, line) for rank, tail in self._tails.items() for line in tail.read()]
        new.sort(key=lambda stamp: stamp.t_s)
        self.seen += new
        return new

    def wait(self, wanted: Callable[[Stamp], bool], limit_s: float) -> Stamp:
        """The first stamp from now on that is wanted; raises Late after `limit_s`."""
        self.read()
        until_s = time.monotonic() + limit_s
        while True:
            for stamp in self._more(until_s):
                if wanted(stamp):
                    return stamp

    def wait_all(self, enough: Callable[[list[Stamp]], bool], limit_s: float) -> None:
        """Return when what was stamped so far, since ever, is enough; raises Late after `limit_s`."""
        self.read()
        until_s = time.monotonic() + limit_s
        while not enough(self.seen):
            self._more(until_s)

    def _more(self, until_s: float) -> list[Stamp]:
        """Block until something new was stamped."""
        while not (new := self.read()):
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise Late("what was waited for was not stamped in time")
            ready, _, _ = select.select([self._folder.fd, *self.needed], [], [], left_s)
            if set(ready) & set(self.needed):
                raise Late("the processes that train have ended")
        return new

    def close(self) -> None:
        for fd in self.needed:
            os.close(fd)
        self._folder.__exit__(None, None, None)
