"""The edge of a replica: its ports, their certificates, and the keys that open them."""

import asyncio
import contextlib
import pathlib
import resource
import signal
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tradewind.errors import MissingExtraError
from tradewind.serve.app import App
from tradewind.serve.classes import Guarantee
from tradewind.serve.gate import Gate
from tradewind.serve.http import Limits, Listener, Turns
from tradewind.serve.keys import load_keys
from tradewind.serve.renewal import Look, Renewal, keep_renewed
from tradewind.serve.replica import Replica
from tradewind.serve.tls import Certificates

if TYPE_CHECKING:
    from tradewind.serve.grpc.server import GrpcServer

MAX_CONNECTIONS = 16_384
OTHER_FILES = 256
"""Open files that are kept for other things than connections."""


class Edge:
    """Both ports of a replica, from `start` to `close`; `followed` is looked at as its files are. Raises SpecError where a file it needs cannot be used."""

    def __init__(self, replica: Replica, followed: Sequence[Look] = ()) -> None:
        self._replica = replica
        self._followed = followed
        spec = replica.spec
        self._keys_path = None if spec.keys is None else pathlib.Path(spec.keys)
        self._gate = None if self._keys_path is None else Gate(load_keys(self._keys_path))
        self._certificates = None if spec.tls is None else Certificates(spec.tls)
        self._listener: Listener
        self._grpc: GrpcServer | None = None
        self._renewing: asyncio.Task[None]
        self.url = ""
        self.grpc_address = ""

    async def start(self, sock: socket.socket) -> None:
        """Listen on `sock` for HTTP, and for gRPC where the endpoint has a port for it; its models are loaded."""
        replica, context = self._replica, None if self._certificates is None else self._certificates.context
        limits = Limits(replica.max_bytes, max_connections=_max_connections())
        turns = Turns(Guarantee(replica.terms.shares, replica.terms.slo_s))
        self._listener = Listener(App(replica, gate=self._gate), limits, turns)
        await self._listener.start(sock, context)
        replica.num_connections = lambda: self._listener.num_connections
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if context is None else 'https'}://{shown}:{port}"
        if replica.spec.grpc_port is not None:
            self._grpc = _grpc_server(replica, self._gate)
            bound = await self._grpc.start(host, replica.spec.grpc_port, self._certificates)
            self.grpc_address = f"{shown}:{bound}"
        self._renewing = asyncio.ensure_future(keep_renewed(self._renewals(), _asked_for_renewal()))

    @property
    def num_connections(self) -> int:
        return self._listener.num_connections

    async def drain(self, timeout_s: float) -> None:
        """Take no more, answer what was asked, and return when that is done or the time is up."""
        drained = [self._listener.drain(timeout_s)]
        if self._grpc is not None:
            drained.append(self._grpc.drain(timeout_s))
        await asyncio.gather(*drained)

    async def close(self) -> int:
        """Cut everything off; return how many HTTP connections there still were."""
        self._renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._renewing
        if self._grpc is not None:
            await self._grpc.drain(0.0)
        return self._listener.close()

    def _renewals(self) -> list[Look]:
        found: list[Look] = [*self._followed]
        if self._certificates is not None:
            found.append(Renewal("certificates", self._certificates.paths, self._renew_certificates))
        if self._keys_path is not None:
            found.append(Renewal("keys", [self._keys_path], self._renew_keys))
        return found

    async def _renew_certificates(self) -> None:
        assert self._certificates is not None
        self._certificates.load()
        await self._listener.renew(self._certificates.context)

    async def _renew_keys(self) -> None:
        assert self._gate is not None
        assert self._keys_path is not None
        self._gate.adopt(load_keys(self._keys_path))


def _grpc_server(replica: Replica, gate: Gate | None) -> "GrpcServer":
    try:
        from tradewind.serve.grpc.calls import Calls
        from tradewind.serve.grpc.server import GrpcServer, Limits
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"gRPC needs {error.name}; install it with: pip install 'tradewind[serve]'"
        ) from None
    return GrpcServer(App(replica, lambda replica: Calls(replica).routes(), gate), Limits(replica.max_bytes))


def _asked_for_renewal() -> asyncio.Event:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    return asked


def _max_connections() -> int:
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, open_files - OTHER_FILES))
