"""A real PostgreSQL on a loopback port, from the binaries that Debian's `postgresql` package brings."""

import contextlib
import glob
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.ports import free_port


def binaries() -> pathlib.Path | None:
    """The folder of `initdb` and `postgres`: Debian's newest, else the PATH's."""
    debian = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: float(path.split("/")[4]))
    found = debian[-1] if debian else os.path.dirname(os.path.realpath(shutil.which("postgres") or ""))
    path = pathlib.Path(found)
    return path if (path / "initdb").exists() and (path / "postgres").exists() else None


def _unprivileged() -> dict[str, Any]:
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {user.pw_name: user for user in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A running server; gives the URL of its `postgres` database."""
    bin = binaries()
    if bin is None:
        pytest.skip("PostgreSQL IS NOT TESTED: no initdb and postgres found (apt install postgresql)")
    as_user = _unprivileged()
    folder = tempfile.mkdtemp(prefix="postgres-")
    try:
        if as_user:
            os.chown(folder, as_user["user"], as_user["group"])
        initdb = [
            bin / "initdb",
            "-D",
            f"{folder}/data",
            "-U",
            "test",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run([*initdb, "--locale=C"], check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
        with _serving(bin, folder, as_user) as port:
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _serving(bin: pathlib.Path, folder: str, as_user: dict[str, Any]) -> Iterator[int]:
    port = free_port()
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    command = [str(bin / "postgres"), "-D", f"{folder}/data", "-p", str(port)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, **as_user)
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "ready to accept connections" in line:
            break
    else:
        raise RuntimeError(f"PostgreSQL did not start:\n{''.join(said)}")
    drain = threading.Thread(target=server.stderr.read, daemon=True)
    drain.start()
    try:
        yield port
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        drain.join()
        server.stderr.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server's `postgres` database; one server for all tests."""
    with postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of an empty schema of this test's own; a schema is made in milliseconds, a database in seconds."""
    psycopg = pytest.importorskip("psycopg", reason="PostgreSQL IS NOT TESTED: psycopg is not installed")
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{postgres_server}?options=-csearch_path%3D{name}"
