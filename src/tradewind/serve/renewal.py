"""Files that are read again while the server runs: when they change, and on SIGHUP."""

import asyncio
import pathlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from tradewind.errors import SpecError

LOOK_EVERY_S = 2.0
log = structlog.get_logger()
Stamp = tuple[tuple[int, int, int], ...]


class Look(Protocol):
    """Something that may have changed since it was last looked at."""

    async def look(self, asked: bool = False) -> None: ...


class Renewal:
    """One set of files and what is done when they are others; what is not well formed is logged and not used."""

    def __init__(
        self, what: str, paths: Sequence[pathlib.Path], renew: Callable[[], Awaitable[None]]
    ) -> None:
        self._what = what
        self._paths = paths
        self._renew = renew
        self._seen = _stamp(paths)

    async def look(self, asked: bool = False) -> None:
        """Renew if a file has changed since it was last looked at, or if `asked`."""
        stamp = _stamp(self._paths)
        if not asked and stamp in (self._seen, None):
            return
        self._seen = stamp
        try:
            await self._renew()
        except SpecError as error:
            log.error("not renewed", what=self._what, error=str(error))
        else:
            log.info("renewed", what=self._what)


async def keep_renewed(renewals: Sequence[Look], asked: asyncio.Event) -> None:
    """Look at everything now and then, and at once when `asked` is set; until cancelled."""
    while True:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await asked.wait()
        except TimeoutError:
            pass
        forced = asked.is_set()
        asked.clear()
        for renewal in renewals:
            await renewal.look(forced)


def _stamp(paths: Sequence[pathlib.Path]) -> Stamp | None:
    try:
        stats = [path.stat() for path in paths]
    except OSError:
        return None  # being replaced; there is another look
    return tuple((s.st_ino, s.st_mtime_ns, s.st_size) for s in stats)
