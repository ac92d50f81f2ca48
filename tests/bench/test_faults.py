"""Recorded operations and the disks they may leave."""

import io
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.faults.disk import Disk, Tree, power_cuts, read_tree, torn, write_tree
from bench.faults.record import Op, Recorder, note, read_log, recording


def recorded(folder: Path, work: Callable[[Path], object]) -> list[Op]:
    """The operations of some work on `folder/root`."""
    root = folder / "root"
    root.mkdir()
    with recording(Recorder(root, folder / "log")):
        work(root)
    return read_log(folder / "log")


def played(ops: list[Op], *, journal: bool) -> Disk:
    disk = Disk({}, journal=journal)
    for op in ops:
        disk.apply(op)
    return disk


def busy(root: Path) -> None:
    """A little of everything."""
    (root / "a").mkdir()
    (root / "a" / "text").write_text("hello\nworld")
    with open(root / "a" / "bytes", "wb") as file:
        file.write(b"x" * 20_000)
        file.seek(5)
        file.write(b"yy")
        file.truncate(15_000)
    with open(root / "a" / "bytes", "ab") as file:
        file.write(b"end")
    fd = os.open(root / "raw", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"0123")
    os.pwrite(fd, b"9", 1)
    os.writev(fd, [b"45", b"67"])
    os.ftruncate(fd, 6)
    os.close(fd)
    shutil.copyfile(root / "raw", root / "copy")
    os.link(root / "raw", root / "same")
    with open(root / "same", "r+b", buffering=0) as both:
        both.write(b"Z")
    os.rename(root / "copy", root / "a" / "moved")
    os.replace(root / "a", root / "b")
    (root / "gone").mkdir()
    (root / "gone" / "x").touch()
    shutil.rmtree(root / "gone")


@pytest.mark.parametrize("journal", [True, False])
def test_the_log_makes_the_folder(tmp_path: Path, journal: bool) -> None:
    """Replaying what was recorded gives what the kernel has, byte for byte, on both file systems."""
    disk = played(recorded(tmp_path, busy), journal=journal)
    assert disk.killed() == read_tree(tmp_path / "root")
    assert disk.killed()["b/bytes"].endswith(b"xend")


def test_nothing_is_patched_afterwards(tmp_path: Path) -> None:
    """After the block the calls are Python's own again."""
    before = (open, io.open, os.open, os.write, os.rename)
    recorded(tmp_path, busy)
    assert (open, io.open, os.open, os.write, os.rename) == before


def test_a_write_around_python_is_found_out(tmp_path: Path) -> None:
    """A change that was not seen leaves the log short of the folder."""
    ops = recorded(tmp_path, lambda root: (root / "seen").write_bytes(b"1"))
    (tmp_path / "root" / "unseen").write_bytes(b"2")
    assert played(ops, journal=True).killed() != read_tree(tmp_path / "root")


def killed_at(folder: Path, number: int, tear: float = 0.0) -> Tree:
    """What a forked process left that gets SIGKILL instead of this operation."""
    root = folder / f"killed{number}"
    root.mkdir()
    child = os.fork()
    if child == 0:
        with recording(Recorder(root, folder / f"log{number}", kill_at=number, tear=tear)) as recorder:
            note(recorder, "start")
            busy(root)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return read_tree(root)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_comes_before_its_operation(tmp_path: Path) -> None:
    """Killed at number k a process has done k operations, and a torn write in part."""
    ops = recorded(tmp_path, busy)
    for number in (0, 1, 3, 7, len(ops) - 1):
        assert killed_at(tmp_path, number) == played(ops[:number], journal=True).killed()
    write = next(k for k, op in enumerate(ops) if len(op.data) > 10_000)
    left = killed_at(tmp_path, write, tear=0.25)
    assert left["a/bytes"] == b"x" * (len(ops[write].data) // 4)


COMMIT = [
    Op("mkdir", "new"),
    Op("create", "new/file"),
    Op("write", "new/file", data=b"data" * 3000),
    Op("sync", "new/file"),
    Op("sync", "new"),
    Op("rename", "new", to="final"),
    Op("sync", ""),
]


def states(ops: list[Op], *, journal: bool) -> list[Tree]:
    return power_cuts(played(ops, journal=journal), random.Random(0), draws=50)


@pytest.mark.parametrize("journal", [True, False])
def test_what_was_flushed_is_there(journal: bool) -> None:
    """After flushing file, folder and the folder above, every loss of power leaves everything."""
    whole = {"final": None, "final/file": b"data" * 3000}
    assert all(state == whole for state in states(COMMIT, journal=journal))
    unflushed = states(COMMIT[:-1], journal=journal)
    assert {frozenset(state) for state in unflushed} <= {
        frozenset(),
        frozenset({"new", "new/file"}),
        frozenset(whole),
    }
    assert any("final" in state for state in unflushed)
    assert any("final" not in state for state in unflushed)


def test_only_a_journal_keeps_names_in_order() -> None:
    """A file's flush makes earlier names durable with a journal; POSIX alone promises only its bytes."""
    ops = COMMIT[:4]
    assert all(state["new/file"] == b"data" * 3000 for state in states(ops, journal=True))
    assert {} in states(ops, journal=False)


def test_bytes_that_were_not_flushed_may_be_anything_of_theirs() -> None:
    """Without the file's flush it may be absent, empty, in part, zeros, or whole; never other bytes."""
    ops = [op for op in COMMIT if op != Op("sync", "new/file")]
    found = {state["final/file"] for state in states(ops, journal=False)}
    whole = b"data" * 3000
    assert {b"", bytes(len(whole)), whole} < found
    for data in found:
        assert len(data) <= len(whole)
        assert {data[at : at + 4] for at in range(0, len(data) // 4 * 4, 4)} <= {b"data", bytes(4)}


def test_a_write_is_torn_inside() -> None:
    """The parts of a write that a kill may leave are proper first parts of it."""
    op = Op("write", "f", offset=3, data=bytes(range(256)) * 20)
    parts = torn(op, random.Random(0), cuts=4)
    assert parts
    for part in parts:
        assert 0 < len(part.data) < len(op.data)
        assert op.data.startswith(part.data)
        assert part.offset == 3
    assert torn(Op("sync", "f"), random.Random(0), cuts=4) == []


def test_a_tree_is_written_as_it_was_read(tmp_path: Path) -> None:
    """What is read from one folder can be made in another, in place of what was there."""
    busy(tmp_path)
    tree = read_tree(tmp_path)
    (tmp_path / "stray").touch()
    write_tree(tree, tmp_path)
    assert read_tree(tmp_path) == tree
