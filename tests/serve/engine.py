"""A dispatcher and a pool of real worker processes, driven from a test, with a clock that can be set forward."""

import asyncio
import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import numpy as np
import uvloop

from tradewind.serve.dispatch import Dispatcher
from tradewind.serve.execution import Pool, WorkerOptions
from tradewind.serve.jobs import Job, Prepared, Tensor
from tradewind.serve.metrics import Metrics
from tradewind.serve.profile import Profile


class Engine:
    """One worker that answers and one spare."""

    def __init__(self, package: pathlib.Path) -> None:
        self.loop = uvloop.new_event_loop()
        self.ahead_s = 0.0
        self.metrics = Metrics(0.05)
        self.dispatcher = Dispatcher(self.metrics, lambda: time.monotonic() + self.ahead_s)
        self.changed: asyncio.Event
        self.pool = Pool(WorkerOptions(str(package), 16, 0), 1, 1, self._on_change)
        self.dispatcher.pool = self.pool

    @classmethod
    @contextlib.contextmanager
    def running(cls, package: pathlib.Path) -> Iterator["Engine"]:
        """Run until the block ends."""
        engine = cls(package)
        thread = threading.Thread(target=engine.loop.run_forever)
        thread.start()
        try:
            engine.run(engine._start())
            yield engine
        finally:
            engine.run(engine.pool.close())
            engine.run(engine.loop.shutdown_default_executor())
            engine.loop.call_soon_threadsafe(engine.loop.stop)
            thread.join()
            engine.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the engine's loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(120)

    def submit(self, program: str = "lookup", *, budget_s: float = 30.0, **arrays: np.ndarray) -> Job:
        """Queue a request; to be called in the loop."""
        deadline_s = time.monotonic() + self.ahead_s + budget_s
        return self.dispatcher.submit(program, prepared(**arrays), deadline_s)

    async def begin(self, program: str = "lookup", *, budget_s: float = 30.0, **arrays: np.ndarray) -> Job:
        """Queue a request, and let an idle worker have it before anything else comes."""
        job = self.submit(program, budget_s=budget_s, **arrays)
        await asyncio.sleep(0)
        return job

    async def loaded(self, num_workers: int = 2) -> None:
        """Wait until so many workers are loaded and alive."""
        while self.pool.size < num_workers:
            self.changed.clear()
            await self.changed.wait()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[list[int]]:
        """Stop every worker, so that what is submitted stays where it is; those alive go on after the block."""
        pids = self.pool.processes
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield pids
        finally:
            for pid in self.pool.processes:
                os.kill(pid, signal.SIGCONT)

    async def _start(self) -> None:
        self.changed = asyncio.Event()
        description, _ = await self.pool.start()
        for program, about in description.programs.items():
            self.dispatcher.add_program(program, Profile(about.profile_s))

    def _on_change(self) -> None:
        self.dispatcher.pump()
        self.changed.set()


def prepared(**arrays: np.ndarray) -> Prepared:
    """The tensors of a request that shares batches with those of its shape."""
    names = {"float32": "FP32", "int64": "INT64"}
    tensors = {n: Tensor(names[str(a.dtype)], a.shape, a.tobytes()) for n, a in arrays.items()}
    rows = next(iter(arrays.values())).shape[0]
    return Prepared(tensors, rows, tuple(a.shape[1:] for a in arrays.values()))
