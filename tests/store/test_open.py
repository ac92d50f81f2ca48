"""Opening a store: where it is, and what is said when it cannot be opened."""

import fcntl
import os
import pathlib
import sqlite3

import pytest

from tests.services.ports import free_port
from tradewind.errors import SpecError, StoreError
from tradewind.store import Run, Store, home, open_store
from tradewind.store.engine import Database


def test_where_the_store_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument wins over $TRADEWIND_STORE, which wins over $TRADEWIND_HOME, which wins over ~/.tradewind."""
    for name in ("TRADEWIND_STORE", "TRADEWIND_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert home() == tmp_path / "user" / ".tradewind"
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    assert home() == tmp_path / "home"
    assert not home().exists()
    with open_store() as store:
        assert store.url == f"sqlite:///{tmp_path}/home/store.db"
    monkeypatch.setenv("TRADEWIND_STORE", f"sqlite:///{tmp_path}/by-url.db")
    with open_store() as store:
        assert store.url.endswith("by-url.db")
    with open_store(str(tmp_path / "by-path.db")) as store:
        assert store.url.endswith("by-path.db")
    found = {path.name for path in tmp_path.rglob("*.db")}
    assert found == {"store.db", "by-url.db", "by-path.db"}


@pytest.mark.parametrize(
    "url", ["mysql://user:secret@host/db", "sqlite://", "sqlite:///:memory:", "http://x", "://", "a b://"]
)
def test_urls_that_are_no_store(url: str) -> None:
    """A URL that cannot be shared by processes is refused with examples, and its password is not shown."""
    with pytest.raises(SpecError, match="postgresql://user@host/database") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_what_cannot_be_opened_is_named(tmp_path: pathlib.Path) -> None:
    """A server that is not there, a path under a file and a file that is no database are named without passwords."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "text.db").write_text("this is not a database" * 100)
    dead = f"postgresql://user:secret@127.0.0.1:{free_port()}/db"
    for url, said in (
        (dead, "postgresql"),
        (str(tmp_path / "file" / "store.db"), "file/store.db"),
        (str(tmp_path / "text.db"), "text.db"),
    ):
        with pytest.raises(StoreError, match=said) as caught:
            open_store(url)
        assert "secret" not in str(caught.value)


def test_opening_waits_for_who_makes_the_tables(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SQLite file is made by one process at a time: turning its log on does not wait by itself."""
    seen = []
    original = Database._make_tables

    def probe(self: Database) -> None:
        with (tmp_path / "store.db.lock").open("wb") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(self)
        original(self)

    monkeypatch.setattr(Database, "_make_tables", probe)
    open_store(str(tmp_path / "store.db")).close()
    assert len(seen) == 1


def test_a_newer_schema_is_refused(tmp_path: pathlib.Path) -> None:
    """A store that another version of the schema wrote is not read."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    open_store(url).close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("UPDATE tradewind_schema SET version = 99")
    connection.close()
    with pytest.raises(StoreError, match="schema 99"):
        open_store(url)


def test_sqlite_commits_reach_the_disk(tmp_path: pathlib.Path) -> None:
    """SQLite runs with a write-ahead log and flushes at every commit."""
    with open_store(str(tmp_path / "store.db")) as store:
        with store._db.read() as connection:  # type: ignore[attr-defined]
            found = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
    assert found == ["wal", 2, 1]


def test_a_lost_connection_is_replaced(postgres_url: str) -> None:
    """After the server has cut every connection, the next call works."""
    import psycopg

    with open_store(postgres_url) as store:
        store.add_run(Run(id="a", name="a", created_s=1.0))
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            cut = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
        assert cut
        assert store.run("a").name == "a"


def test_a_store_may_be_shared_by_threads(store: Store) -> None:
    """Threads of one process write through one store, each commit of its own."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda n: store.add_model_version("m", str(n), "/p", {}).version, range(24)))
    assert sorted(given) == list(range(1, 25))


def test_open_files_do_not_grow(tmp_path: pathlib.Path) -> None:
    """Opening and closing a store gives back its files."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with open_store(str(tmp_path / "store.db")) as store:
            store.runs()
    assert len(os.listdir("/proc/self/fd")) == before
