"""Compile a served version's programs beside serving it, and change over to workers that run them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import msgspec
import structlog

from tradewind.models import building
from tradewind.serve.follow import stopped
from tradewind.serve.replica import Replica
from tradewind.serve.serving import Serving

log = structlog.get_logger()


class Compiling:
    """Compiles whatever version comes to serve; whatever goes wrong, that version serves on as it is."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._seen: Serving | None = None
        self._task: asyncio.Task[None] | None = None

    async def look(self, asked: bool = False) -> None:
        """See whether a version serves that was not looked at; compile it in the background, one at a time."""
        serving = self._replica.serving
        if serving is self._seen or self._replica.draining or not (self._task is None or self._task.done()):
            return
        self._seen = serving
        if any(not how.compiled for how in serving.execution.values()):
            self._task = asyncio.ensure_future(self._compile(serving))

    async def close(self) -> None:
        """End whatever is being compiled or loaded."""
        await stopped(self._task)

    async def _compile(self, serving: Serving) -> None:
        log.info("compiling", serving=serving.label)
        try:
            if await self._built(serving):
                await self._change_over(serving)
        except Exception as error:  # noqa: BLE001 - the log says so; the version that serves goes on
            log.error("not compiled", error=str(error), serving=serving.label)

    async def _built(self, serving: Serving) -> bool:
        """Whether anything new came of it."""
        new = False
        async for built in _build(serving):
            if built.error:
                log.warning("not compiled", program=built.program, error=built.error, serving=serving.label)
            elif built.built:
                new = True
                log.info("compiled", program=built.program, seconds=round(built.seconds, 1))
        return new

    async def _change_over(self, serving: Serving) -> None:
        """Load the version anew, which tries what was compiled and measures; unless another one serves meanwhile."""
        new = await self._replica.load(serving.options, serving.version)
        if self._replica.serving is not serving or not any(how.compiled for how in new.execution.values()):
            await new.close()
            return
        self._seen = new
        self._replica.switch(new)


async def _build(serving: Serving) -> AsyncIterator[building.Built]:
    """What the builder says of each program. It ends when this does."""
    process = await asyncio.create_subprocess_exec(
        *building.command(serving.options.package, serving.options.digest),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=building.environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            yield msgspec.json.decode(line, type=building.Built)
        building.check_end(await process.wait())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its compiler too
        await process.wait()
