"""A real Redis on a loopback port of its own, from Debian's `redis-server`; nothing of it is kept."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.services.ports import free_port

PASSWORD = "s3cret"


class RedisServer:
    """A server that may be killed, held up and started again, on the same port and socket."""

    def __init__(
        self, program: str, folder: pathlib.Path, password: str = "", tls: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.tls_port = free_port() if tls else 0
        self.password = password
        self._tls = dict(tls or {})
        self.socket = folder / "redis.sock"
        self._folder = folder
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Return once it answers."""
        options = (
            {
                "bind": "127.0.0.1",
                "port": str(self.port),
                "unixsocket": str(self.socket),
                "dir": str(self._folder),
                "save": "",
                "appendonly": "no",
                "daemonize": "no",
            }
            | self._tls
            | {"tls-port": str(self.tls_port)}
        )
        options |= {"requirepass": self.password} if self.password else {}
        command = [self._program, *(part for name, value in options.items() for part in (f"--{name}", value))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"Ready to accept connections" in line:
                break
        else:
            raise RuntimeError("redis-server ended before it was ready")

    def kill(self) -> None:
        """End it as a crash would; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """It takes connections, as the kernel does for it, and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def run(self, *command: str | bytes) -> bytes:
        """Return what it says to one command, as bytes of its protocol after the first."""
        with (
            socket.create_connection(("127.0.0.1", self.port)) as connection,
            connection.makefile("rb") as said,
        ):
            if self.password:
                _ask(connection, ("AUTH", self.password))
                said.readline()
            _ask(connection, command)
            head = said.readline()
            return said.read(int(head[1:])) if head[:1] == b"$" and head[1:2] != b"-" else head.strip()

    def put(self, key: str, value: bytes) -> None:
        assert self.run("SET", key, value) == b"+OK"

    def calls(self, command: str) -> int:
        """How often it was given a command, by its own statistics."""
        for line in self.run("INFO", "commandstats").decode().splitlines():
            name, _, values = line.partition(":")
            if name == f"cmdstat_{command}":
                return int(values.split(",")[0].removeprefix("calls="))
        return 0


def _ask(connection: socket.socket, command: Sequence[str | bytes]) -> None:
    parts = [part.encode() if isinstance(part, str) else part for part in command]
    connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))


@contextlib.contextmanager
def redis_server(password: str = "", tls: Mapping[str, str] | None = None) -> Iterator[RedisServer]:
    """A running server with nothing in it; `tls` are its options for that, and it has a second port then."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("REDIS IS NOT TESTED: no redis-server found (apt install redis-server)")
    pytest.importorskip("redis", reason="REDIS IS NOT TESTED: its client is not installed")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(program, pathlib.Path(folder), password, tls)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for the tests that only read and write."""
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """An empty server."""
    shared_redis.run("FLUSHALL")
    shared_redis.run("CONFIG", "RESETSTAT")
    return shared_redis
