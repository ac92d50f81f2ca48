"""Several processes on one store, some of them killed: nothing acknowledged is lost, nothing is half there."""

import collections
import contextlib
import pathlib
import random
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.store.writer import BATCH
from tradewind.store import Run, Store, open_store

ROOT = pathlib.Path(__file__).parents[2]
SEEDS = range(4)


def start(url: str, writer: str, rounds: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.store.writer", url, writer, str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, cwd=ROOT)


@contextlib.contextmanager
def writers(url: str, names: list[str], rounds: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [start(url, name, rounds) for name in names]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def read_all(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.read()


def acknowledged(said: bytes) -> list[tuple[str, int]]:
    """The whole lines of what a writer said."""
    words = [line.decode().split() for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
    return [(kind, int(number)) for kind, number in words]


def read_until(process: subprocess.Popen[bytes], lines: int, then_s: float) -> bytes:
    """What the process said in its first `lines` lines and the `then_s` seconds after them."""
    assert process.stdout is not None
    said = b""
    while said.count(b"\n") < lines:
        new = process.stdout.read(4096)
        assert new, "the writer ended by itself"
        said += new
    deadline = time.monotonic() + then_s
    while (left := deadline - time.monotonic()) > 0:
        if select.select([process.stdout], [], [], left)[0]:
            said += process.stdout.read(4096)
    return said


def check_whole(store: Store, url: str) -> None:
    """Events come in whole batches, versions are 1..N, the file is sound."""
    counts = collections.Counter((event.kind, event.data["n"]) for event in store.events("shared"))
    assert set(counts.values()) <= {BATCH}
    versions = [item.version for item in store.model_versions("model")]
    assert versions == list(range(1, len(versions) + 1))
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def check_kept(store: Store, writer: str, said: list[tuple[str, int]]) -> None:
    """Everything that the store acknowledged to this writer is in the store."""
    kept = {
        "events": {event.data["n"] for event in store.events("shared", kind=writer)},
        "version": {
            item.version for item in store.model_versions("model") if item.digest.startswith(f"{writer}-")
        },
        "alias": {
            move.version for move in store.alias_history("model", "production") if move.actor == writer
        },
        "run": {metric.step for metric in store.metrics("shared", writer)},
    }
    for kind, number in said:
        assert number in kept[kind], f"{writer} was told that {kind} {number} is kept"
    last = max((number for kind, number in said if kind == "run"), default=None)
    exit_code = store.run(writer).exit_code
    assert last is None or (exit_code is not None and exit_code >= last)


def test_several_processes_write_at_once(store_url: str) -> None:
    """Four processes that write at once keep all they wrote, and no version number is given twice."""
    names, rounds = ["ada", "bob", "cyd", "dot"], 8
    with open_store(store_url) as store:
        for name in ["shared", *names]:
            store.add_run(Run(id=name, name=name, created_s=1.0))
        with writers(store_url, names, rounds) as processes:
            said = [acknowledged(read_all(process)) for process in processes]
            assert [process.wait() for process in processes] == [0] * 4
        given = [number for lines in said for kind, number in lines if kind == "version"]
        assert sorted(given) == list(range(1, 4 * rounds + 1))
        check_whole(store, store_url)
        for name, lines in zip(names, said, strict=True):
            assert len(lines) == 4 * rounds
            check_kept(store, name, lines)


@pytest.mark.parametrize("seed", SEEDS)
def test_kill_loses_nothing_acknowledged(store_url: str, seed: int) -> None:
    """After `kill -9` of a writer at a random instant, what it was told is kept is kept, and others go on."""
    chance = random.Random(seed)
    with open_store(store_url) as store:
        for name in ("shared", "victim", "other"):
            store.add_run(Run(id=name, name=name, created_s=1.0))
        with writers(store_url, ["victim", "other"], 0) as (victim, other):
            heard = read_until(victim, chance.randrange(1, 30), chance.uniform(0, 0.02))
            victim.kill()
            assert victim.wait() == -9
            read_until(other, 8, 0)  # goes on only if the dead one's locks are gone
            other.kill()
            said = acknowledged(heard + read_all(victim))
        check_whole(store, store_url)
        check_kept(store, "victim", said)
    with open_store(store_url) as again:
        check_whole(again, store_url)
        assert again.add_model_version("model", "after", "/nowhere", {}).version == len(
            again.model_versions("model")
        )


def test_opening_at_once_makes_the_tables_once(store_url: str, tmp_path: pathlib.Path) -> None:
    """Six processes that open an absent store at the same moment all succeed."""
    code = (
        "import sys; from tradewind.store import open_store; sys.stdin.read(); open_store(sys.argv[1]).runs()"
    )
    command = [sys.executable, "-c", code, store_url]
    openers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.close()
    errors = []
    for opener in openers:
        assert opener.stderr is not None
        errors.append(opener.stderr.read().decode())
        opener.stderr.close()
        opener.wait()
    assert errors == [""] * 6
