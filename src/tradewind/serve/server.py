"""Run a replica: start workers, listen, drain on SIGTERM."""

import asyncio
import gc
import pathlib
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import structlog

from tradewind.errors import SpecError
from tradewind.names import MANIFEST
from tradewind.scale.runtime import raise_open_files
from tradewind.serve import extensions, logs
from tradewind.serve.accesslog import AccessLog, Mode
from tradewind.serve.compiling import Compiling
from tradewind.serve.edge import MAX_CONNECTIONS, Edge
from tradewind.serve.engines import reference
from tradewind.serve.execution import WorkerOptions
from tradewind.serve.follow import Follower
from tradewind.serve.gpus import find
from tradewind.serve.placement import here, places
from tradewind.serve.replica import Replica
from tradewind.spec import EndpointSpec

if TYPE_CHECKING:
    from tradewind.store import Store

log = structlog.get_logger()
OnReady = Callable[[Edge, Replica], None]
LINGER_S = 0.5
"""Seconds that new connections are still answered after SIGTERM, for balancers that have not noticed yet."""
GARBAGE_OBJECTS = 50_000
"""New objects before the youngest are looked through: thousands belong to requests under way, and go by themselves."""
DRAIN_S = 30.0
"""Seconds that requests in flight then have until their connections are cut off."""


def _nobody(edge: Edge, replica: Replica) -> None:
    """Nobody wants to know."""


class Located(NamedTuple):
    """The package to serve, and what the store says its digest is; "" for a folder named by its path."""

    path: pathlib.Path | str
    """A folder, or `file.py:Class`."""
    version: str
    digest: str = ""
    alias: str = ""
    """The `name@alias` that led to it, and may lead elsewhere later; "" for what does not move."""


def locate(model: str, store: "Callable[[], Store]") -> Located:
    """Return where the package of a reference is, or of a folder given by its path, or a class of a file."""
    if reference.is_reference(model):
        return Located(reference.locate(model), "1")
    path = pathlib.Path(model)
    if (path / MANIFEST).is_file():
        return Located(path.resolve(), "1")
    if "/" in model:
        raise SpecError(f"{model}: there is no package folder here (no {MANIFEST})")
    found = store().model_version(model)
    which = model.partition("@")[2]
    alias = model if which and not which.isdecimal() else ""
    return Located(pathlib.Path(found.path), str(found.version), found.digest, alias)


def serve(
    spec: EndpointSpec,
    store: "Store",
    *,
    access_log: Mode = "auto",
    num_spares: int = 1,
    on_ready: OnReady = _nobody,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `on_ready` is called once requests are answered.

    Raises NotFoundError for an unknown model, IntegrityError or TradewindError when it cannot be loaded, SpecError where
    the device that the spec asks for is not there.
    """
    logs.to_stderr()
    extensions.check()
    raise_open_files(MAX_CONNECTIONS)
    package = locate(spec.model, lambda: store)
    machine = here(find() if spec.device == "cuda" else ())
    options = WorkerOptions(
        str(package.path),
        spec.max_batch,
        spec.candidates,
        spec.index,
        places(machine, spec.workers, num_spares),
        package.digest,
        levels=spec.levels,
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        replica = Replica(spec, options, package.version, num_spares, AccessLog(access_log))
        looks: list[Follower | Compiling] = [Compiling(replica)] if spec.compile else []
        if package.alias:
            looks.append(Follower(replica, options, package.alias, store))
        runner.run(_serve(replica, looks, on_ready))


async def _serve(replica: Replica, looks: Sequence[Follower | Compiling], on_ready: OnReady) -> None:
    with _listen(replica.spec.host, replica.spec.port) as sock:
        edge = Edge(replica, looks)
        try:
            await replica.start()
            await edge.start(sock)
            _settle_garbage()
            on_ready(edge, replica)
            await _until_drained(replica, edge)
        finally:
            for look in looks:
                await look.close()
            await replica.close()


def _settle_garbage() -> None:
    """Leave what is here for good out of every later collection: a full one would hold up all requests for as long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)


async def _until_drained(replica: Replica, edge: Edge) -> None:
    """First signal: not ready, answer what comes for a moment, then what is in flight. Second: close at once."""
    asked, again = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (again if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await asked.wait()
    replica.draining = True
    log.info("draining", in_flight=replica.in_flight, connections=edge.num_connections)
    draining = asyncio.ensure_future(_drain(edge))
    hurried = asyncio.ensure_future(again.wait())
    await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, hurried):
        task.cancel()
    cut_off = await edge.close()
    log.info("drained", connections_cut_off=cut_off)


async def _drain(edge: Edge) -> None:
    await asyncio.sleep(LINGER_S)
    await edge.drain(DRAIN_S)


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
