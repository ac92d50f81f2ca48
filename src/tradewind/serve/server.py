"""Run a replica: start workers, listen, drain on SIGTERM."""

import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import structlog
import uvicorn

from tradewind.errors import SpecError
from tradewind.names import MANIFEST
from tradewind.serve.accesslog import AccessLog, Mode
from tradewind.serve.app import build_app
from tradewind.serve.execution import WorkerOptions
from tradewind.serve.replica import Replica
from tradewind.spec import EndpointSpec

if TYPE_CHECKING:
    from tradewind.store import Store

log = structlog.get_logger()
OnReady = Callable[[str, Replica], None]
LINGER_S = 0.5
"""Seconds that new connections are still answered after SIGTERM, for balancers that have not noticed yet."""


def _nobody(url: str, replica: Replica) -> None:
    """Nobody wants to know the URL."""


def locate(model: str, store: "Callable[[], Store]") -> tuple[pathlib.Path, str]:
    """Return the package folder and version of a reference, or of a folder given by path."""
    path = pathlib.Path(model)
    if (path / MANIFEST).is_file():
        return path.resolve(), "1"
    if "/" in model:
        raise SpecError(f"{model}: there is no package folder here (no {MANIFEST})")
    found = store().model_version(model)
    return pathlib.Path(found.path), str(found.version)


def serve(
    spec: EndpointSpec,
    store: "Store",
    *,
    access_log: Mode = "auto",
    num_spares: int = 1,
    index: str = "exact",
    on_ready: OnReady = _nobody,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `on_ready` gets the URL once requests are answered.

    Raises NotFoundError for an unknown model, IntegrityError or TradewindError when it cannot be loaded.
    """
    _log_to_stderr()
    path, version = locate(spec.model, lambda: store)
    threads = max(1, ((os.cpu_count() or 1) - 1) // spec.workers)
    options = WorkerOptions(str(path), spec.max_batch, spec.candidates, index, threads)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(spec, options, version, num_spares, access_log, on_ready))


async def _serve(
    spec: EndpointSpec,
    options: WorkerOptions,
    version: str,
    num_spares: int,
    access_log: Mode,
    on_ready: OnReady,
) -> None:
    replica = Replica(spec, options, version, num_spares, AccessLog(access_log))
    try:
        with _listen(spec.host, spec.port) as sock:
            await replica.start()
            host, port = sock.getsockname()[:2]
            server = _Server(_uvicorn_config(replica), lambda: on_ready(f"http://{host}:{port}", replica))
            _drain_on_signals(replica, server)
            await server.serve(sockets=[sock])
            await replica.dispatcher.drained()
    finally:
        await replica.pool.close()


def _uvicorn_config(replica: Replica) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(replica),
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
    )


class _Server(uvicorn.Server):
    """Leaves signals to us, and says when it listens."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _drain_on_signals(replica: Replica, server: uvicorn.Server) -> None:
    """First signal: not ready, answer what comes for a moment, then close. Second: close at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    def drain() -> None:
        if replica.draining:
            stop()
            return
        replica.draining = True
        log.info("draining", in_flight=replica.dispatcher.in_flight)
        loop.call_later(LINGER_S, stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise SpecError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop


def _log_to_stderr() -> None:
    """JSON lines on stderr; stdout belongs to the command's result."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(
                serializer=lambda event, **_: msgspec.json.encode(event).decode()
            ),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
