"""An event loop in a process that is ready to be timed."""

import asyncio
import gc
import importlib
import resource
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_in_loop(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Runs a coroutine function on uvloop when it is installed, else on asyncio's own loop."""
    try:
        factory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        factory = None

    async def start() -> Result:
        return await main()

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(start())


def raise_open_files(connections: int) -> None:
    """Lifts this process's soft limit of open files towards its hard limit when it is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft < wanted and soft != resource.RLIM_INFINITY:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, soft), hard))


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Holds the garbage collector off: one full collection is several missed send times."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
