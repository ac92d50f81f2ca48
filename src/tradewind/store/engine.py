"""Connections: URLs, transactions, locks and the making of tables, for SQLite and PostgreSQL."""

import contextlib
import fcntl
import importlib.util
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from tradewind.errors import MissingExtraError, SpecError, StoreError
from tradewind.store import schema

_BUSY_TIMEOUT_S = 60.0
_LOCK_SPACE = 0x7D3D  # of PostgreSQL's advisory locks, ours
_POSTGRES_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")


class Database:
    """One database: `read()` and `write()` give a connection inside a transaction."""

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self.url = self._url.render_as_string(hide_password=True)
        self._is_sqlite = self._url.drivername == "sqlite"
        self._engine = _sqlite(self._url) if self._is_sqlite else _postgres(self._url)
        try:
            with self._alone():
                self._make_tables()
        except OSError as error:
            self.close()
            raise StoreError(f"cannot open the store {self.url}: {error}") from None
        except BaseException:  # also on Ctrl-C: nobody else gets to close it
            self.close()
            raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database."""
        with self._named_errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self, *locks: tuple[str, str]) -> Iterator[sa.Connection]:
        """A transaction that commits at the end; writers that name the same (kind, name) take turns."""
        with self._named_errors(), self._engine.connect() as connection:
            connection = connection.execution_options(tradewind_write=True)
            with connection.begin():
                if not self._is_sqlite:  # on SQLite, all writers take turns
                    _take(connection, locks)
                yield connection

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            raise StoreError(f"the store {self.url} does not work: {reason}; see $TRADEWIND_STORE") from error

    def close(self) -> None:
        self._engine.dispose()

    def _make_tables(self) -> None:
        with self.read() as connection:
            found = _schema_version(connection)
        if found is None:
            with self.write(("schema", "")) as connection:
                found = _schema_version(connection) or _create(connection)
        if found != schema.SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.url} has schema {found} and this Tradewind reads {schema.SCHEMA_VERSION}: "
                "use the version that wrote it, or another store"
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process of this machine opens the same SQLite file: turning WAL on is not
        covered by the busy timeout.
        """
        if not self._is_sqlite:
            yield
            return
        path = pathlib.Path(self._url.database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _schema_version(connection: sa.Connection) -> int | None:
    if not sa.inspect(connection).has_table(schema.schema.name):
        return None
    return int(connection.execute(sa.select(schema.schema.c.version)).scalar_one())


def _create(connection: sa.Connection) -> int:
    schema.metadata.create_all(connection)
    connection.execute(sa.insert(schema.schema).values(version=schema.SCHEMA_VERSION))
    return schema.SCHEMA_VERSION


def _take(connection: sa.Connection, locks: Iterable[tuple[str, str]]) -> None:
    """Hold PostgreSQL advisory locks until the transaction ends; in one order, so never in a circle."""
    keys = {zlib.crc32("\0".join(lock).encode("utf-8", "backslashreplace")) for lock in locks}
    for key in sorted(keys):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_SPACE}, {key - 2**31})")


def _parse(text: str) -> sa.URL:
    if "://" not in text:
        text = f"sqlite:///{pathlib.Path(text).absolute()}"
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise SpecError(f"the store's URL is not well formed; {_EXAMPLES}") from None
    if url.drivername in _POSTGRES_SCHEMES:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername != "sqlite" or url.database in (None, "", ":memory:"):
        raise SpecError(f"{url.render_as_string()} is not a store that other processes can open; {_EXAMPLES}")
    return url


_EXAMPLES = "write sqlite:////folder/store.db or postgresql://user@host/database in $TRADEWIND_STORE"


def _sqlite(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A reader that turns writer can be refused at once; a writer that says so at BEGIN waits.
        write = connection.get_execution_options().get("tradewind_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgres(url: sa.URL) -> sa.Engine:
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError("a PostgreSQL store needs psycopg: pip install 'tradewind[postgres]'")
    return sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
