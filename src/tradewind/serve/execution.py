"""Model workers as processes of their own: started, called, found dead by end-of-file, replaced."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import structlog

from tradewind.errors import TradewindError
from tradewind.serve import shared, wire
from tradewind.serve.placement import Place, text_of
from tradewind.spec import QualityLevel

SEND_BYTES = 1 << 22
"""What either end may have on its way, where the kernel allows so much: a batch then goes in fewer pieces."""
FIRST_RESTART_DELAY_S, MAX_RESTART_DELAY_S = 0.05, 10.0

log = structlog.get_logger()
_decode_reply: Callable[[bytes], wire.Reply] = msgspec.json.Decoder(wire.Reply).decode


class WorkerLost(Exception):
    """The worker died before it answered."""

    def __str__(self) -> str:
        return "it ended before it was loaded"


class WorkerOptions(NamedTuple):
    """What a worker is started with."""

    package: str
    max_batch: int
    candidates: int
    index_kind: str = "exact"
    places: tuple[Place, ...] = (Place(),)
    """Where the workers run, and the spares after them; more of them have the same places again."""
    digest: str = ""
    """The package must be this one; "" for whatever is there."""
    repeats: int = 5
    """Runs of each batch size that are measured at start-up, after one to warm up; 0 where that is known."""
    levels: tuple[QualityLevel, ...] = ()
    """The levels of a recommender; its own when empty."""
    compiled: tuple[str, ...] | None = None
    """The programs to run compiled; None to find out which are faster so."""

    def command(self, place: Place, fd: int, memory: int | None = None) -> list[str]:
        return [
            *(sys.executable, "-m", "tradewind.serve.worker", self.package),
            *("--fd", str(fd)),
            *([] if memory is None else ["--memory", str(memory)]),
            *("--max-batch", str(self.max_batch)),
            *("--candidates", str(self.candidates)),
            *("--index", self.index_kind),
            *("--threads", str(place.threads)),
            *("--cpus", text_of(place.cpus)),
            *("--device", place.device),
            *("--digest", self.digest),
            *("--repeats", str(self.repeats)),
            *("--levels", msgspec.json.encode(self.levels).decode()),
            *("--compiled", msgspec.json.encode(self.compiled).decode()),
        ]


class Worker(asyncio.Protocol):
    """One worker process and the socket to it. A call may be made while another runs: it waits at the worker meanwhile."""

    def __init__(
        self, process: subprocess.Popen[bytes], place: Place, memory: shared.Shared | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.place = place
        self._memory = memory
        self.lost: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._buffer = bytearray()
        self._waiters: deque[asyncio.Future[tuple[wire.Reply, bytes]]] = deque()
        """Of those whose answers come next, in this order."""
        self._transport: asyncio.Transport

    @classmethod
    async def start(cls, options: WorkerOptions, place: Place) -> "Worker":
        """Start the process; it can be called once `ready` has returned."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(place.threads))
        own = shared.make()
        try:
            with theirs:
                passed = [theirs.fileno(), *([] if own is None else [own])]
                process = subprocess.Popen(
                    options.command(place, *passed),
                    pass_fds=passed,
                    env=env,
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                )
            memory = None if own is None else shared.Shared(own)
        finally:
            if own is not None:
                os.close(own)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        _, worker = await loop.create_unix_connection(lambda: cls(process, place, memory), sock=ours)
        return worker

    async def ready(self) -> tuple[wire.Description, bytes]:
        """Wait until the package is loaded and measured; return what it is and its vocabulary as JSON."""
        reply, body = await self._answer()
        if reply.ready is None:
            raise TradewindError(f"the model could not be loaded: {reply.error}")
        return reply.ready, body

    def call(
        self, call: wire.Call, buffers: Sequence[wire.Buffer], begin_within_s: float | None = None
    ) -> Awaitable[tuple[wire.Reply, bytes]]:
        """Send one batch at once, to be run unless that has to wait for longer, and return what becomes its answer.

        Awaiting that raises WorkerLost when the process dies first.
        """
        if self.lost.done():
            return self._answer()
        begin_by_s = None if begin_within_s is None else time.monotonic() + begin_within_s
        start = self._memory.put(buffers) if buffers and self._memory is not None else None
        sent = wire.Call(call.program, call.tensors, start, begin_by_s)
        self._transport.writelines(wire.pack(sent, buffers if start is None else ()))
        return self._answer()

    def kill(self) -> None:
        """End the process at once; whoever waits for its answer gets WorkerLost."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    async def stop(self) -> int:
        """Close the socket, end the process, and reap it; return its exit code.

        In a thread: a process that holds gigabytes or a device takes its time to go, and nobody else is to wait.
        """
        self._transport.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self.kill()
        return await asyncio.to_thread(self.process.wait)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(WorkerLost())
        self._waiters.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    def _answer(self) -> asyncio.Future[tuple[wire.Reply, bytes]]:
        waiter: asyncio.Future[tuple[wire.Reply, bytes]] = self._loop.create_future()
        if self.lost.done():
            waiter.set_exception(WorkerLost())
            return waiter
        self._waiters.append(waiter)
        self._deliver()
        return waiter

    def _deliver(self) -> None:
        while self._waiters and (frame := wire.cut(self._buffer)) is not None:
            head, body, end = frame
            del self._buffer[:end]
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result((_decode_reply(head), body))


class Pool:
    """Keeps `num_workers` answering, and `num_spares` loaded beside them so that a loss costs no start-up.

    Spares are workers like the others; `take` never hands out more than `num_workers` at once.
    """

    def __init__(
        self, options: WorkerOptions, num_workers: int, num_spares: int, on_change: Callable[[], None]
    ) -> None:
        self.num_workers = num_workers
        self.restarts = 0
        self._options = options
        places = itertools.cycle(options.places)
        self._places = [next(places) for _ in range(num_workers + num_spares)]
        self._on_change = on_change
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, num_loaded: int = 1) -> tuple[wire.Description, bytes]:
        """Start so many workers, one after the other, and return what they serve; the others follow in the background.

        One after the other because another version may be serving on the same cores. Raises TradewindError with the worker's own words when the package cannot be loaded.
        """
        try:
            worker, description, vocabulary = await self._first()
        except WorkerLost as lost:
            if self._options.compiled is not None:
                code, package = lost.args[0], self._options.package
                raise TradewindError(
                    f"the model worker ended with code {code} while loading {package}"
                ) from None
            # Whether what was compiled ends the process is found out without it: it never keeps a model from serving.
            log.warning(
                "worker lost while loading; tried again without compiled programs", exit_code=lost.args[0]
            )
            self._options = self._options._replace(compiled=())
            return await self.start(num_loaded)
        compiled = tuple(name for name, how in description.execution.items() if how.compiled)
        self._options = self._options._replace(digest=description.digest, repeats=0, compiled=compiled)
        self._adopt(worker)
        for place in self._places[1:num_loaded]:
            self._adopt(await self._next(place))
        for place in self._places[num_loaded:]:
            self._spawn(self._replace(place))
        return description, vocabulary

    @property
    def size(self) -> int:
        """Workers that are loaded and alive."""
        return len(self._idle) + len(self._busy)

    @property
    def places(self) -> list[Place]:
        """Where the loaded workers run."""
        return [worker.place for worker in (*self._busy, *self._idle)]

    @property
    def processes(self) -> list[int]:
        """Process ids of the loaded workers."""
        return [worker.process.pid for worker in (*self._busy, *self._idle)]

    def take(self) -> Worker | None:
        """Return an idle worker, now busy, where the fewest are; None when there is none or enough are busy."""
        if not self._idle or len(self._busy) >= self.num_workers:
            return None
        busy = [worker.place for worker in self._busy]
        worker = min(reversed(self._idle), key=lambda idle: busy.count(idle.place))
        self._idle.remove(worker)
        self._busy.add(worker)
        return worker

    def give_back(self, worker: Worker) -> None:
        """Return a worker after its call; a dead one is left to its watcher."""
        if worker in self._busy:
            self._busy.discard(worker)
            if not worker.lost.done():
                self._idle.append(worker)

    async def close(self) -> None:
        """Stop every worker."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in (*self._idle, *self._busy)))
        self._idle.clear()
        self._busy.clear()

    def _adopt(self, worker: Worker) -> None:
        log.info("worker loaded", pid=worker.process.pid, **worker.place.where)
        self._idle.append(worker)
        self._spawn(self._watch(worker))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, worker: Worker) -> None:
        await asyncio.shield(worker.lost)
        self._busy.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self.restarts += 1
        self._on_change()
        code = await worker.stop()
        log.warning("worker lost", pid=worker.process.pid, exit_code=code)
        await self._replace(worker.place)

    async def _replace(self, place: Place) -> None:
        """Add one loaded worker at this place, however often it takes."""
        delay_s = FIRST_RESTART_DELAY_S
        while True:
            try:
                self._adopt(await self._load(place))
            except (WorkerLost, TradewindError, OSError) as error:
                log.error("worker did not start", error=str(error), retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)
            else:
                self._on_change()
                return

    async def _first(self) -> tuple[Worker, wire.Description, bytes]:
        """Return the worker that measures, loaded. Raises WorkerLost where it died of it."""
        worker = await Worker.start(self._options, self._places[0])
        try:
            return worker, *await worker.ready()
        except WorkerLost:
            raise WorkerLost(await worker.stop()) from None
        except BaseException:  # also when it is not wanted any more: nobody else knows of the process
            await worker.stop()
            raise

    async def _next(self, place: Place) -> Worker:
        try:
            return await self._load(place)
        except WorkerLost:
            raise TradewindError(f"a model worker ended while loading {self._options.package}") from None

    async def _load(self, place: Place) -> Worker:
        worker = await Worker.start(self._options, place)
        try:
            await worker.ready()
        except BaseException:  # also when this server closes meanwhile: nobody else knows of the process
            await worker.stop()
            raise
        return worker
