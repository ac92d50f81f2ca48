"""A server that goes where its alias goes: it loads that version beside the one that serves, and switches."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from tradewind.errors import NotFoundError, StoreError
from tradewind.serve.execution import WorkerOptions
from tradewind.serve.replica import Replica

if TYPE_CHECKING:
    from tradewind.store import Alias, Store

log = structlog.get_logger()


class Follower:
    """Follows one alias; what cannot be loaded changes nothing, and is not tried again until the alias moves again."""

    def __init__(self, replica: Replica, options: WorkerOptions, ref: str, store: "Store") -> None:
        self._replica = replica
        self._options = options
        self._name, _, self._alias = ref.partition("@")
        self._store = store
        self._seen: Alias | None = None
        self._trouble = ""
        self._looking: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None

    async def look(self, asked: bool = False) -> None:
        """See whether the alias has moved; in the background, as a store far away may let one wait."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())

    async def close(self) -> None:
        """Stop looking, and stop whatever is being loaded."""
        for task in (self._looking, self._loading):
            await stopped(task)

    async def _look(self) -> None:
        try:
            move = await asyncio.to_thread(self._where)
        except (StoreError, NotFoundError) as error:
            self._say(str(error))
            return
        self._say("")
        if move == self._seen or self._replica.draining:
            return
        self._seen = move
        await stopped(self._loading)
        if str(move.version) != self._replica.serving.version:
            self._loading = asyncio.ensure_future(self._change(move.version))

    def _where(self) -> "Alias":
        for move in self._store.aliases(self._name):
            if move.alias == self._alias:
                return move
        raise NotFoundError(f"{self._name}@{self._alias}: the alias is gone")

    def _say(self, trouble: str) -> None:
        """Log what keeps it from looking: once, and not every time."""
        if trouble and trouble != self._trouble:
            log.error("alias not read", error=trouble, serving=self._replica.label)
        self._trouble = trouble

    async def _change(self, version: int) -> None:
        replica = self._replica
        log.info("loading", version=str(version), serving=replica.label)
        try:
            found = await asyncio.to_thread(self._store.model_version, f"{self._name}@{version}")
            options = self._options._replace(package=found.path, digest=found.digest)
            replica.switch(await replica.load(options, str(version)))
        except Exception as error:  # noqa: BLE001 - the log and the metrics say so; the version that serves goes on
            log.error("not switched", version=str(version), error=str(error), serving=replica.label)
            replica.metrics.version_changes.labels("failed").inc()
        else:
            replica.metrics.version_changes.labels("switched").inc()


async def stopped(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, and wait until it has ended."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
