"""Waking up: for a written file, and for a signal, none of which is lost."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tradewind.agent.watch import FolderWatch, Signals


def awake(fd: int) -> bool:
    """Whether something is to be read now."""
    return bool(select.select([fd], [], [], 0)[0])


def test_a_write_wakes_and_draining_calms(tmp_path: Path) -> None:
    """A file made or written in a watched folder is seen, another folder's is not, and draining forgets it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with FolderWatch() as files:
        files.add(tmp_path / "a")
        assert not awake(files.fd)
        (tmp_path / "b" / "file").write_text("x")
        assert not awake(files.fd)
        with (tmp_path / "a" / "file").open("w", buffering=1) as file:
            assert awake(files.fd)
            files.drain()
            assert not awake(files.fd)
            file.write("line\n")
            assert awake(files.fd)
        files.drain()
        files.drain()
        files.add(tmp_path / "b")
        (tmp_path / "b" / "file").write_text("y")
        assert awake(files.fd)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Watching nothing is an error that says what could not be watched."""
    with FolderWatch() as files, pytest.raises(OSError, match=r"cannot watch .*none"):
        files.add(tmp_path / "none")


def test_nothing_stays_open(tmp_path: Path) -> None:
    """Watches and signals give back their descriptors."""
    before = os.listdir("/proc/self/fd")
    with FolderWatch() as files, Signals():
        files.add(tmp_path)
    assert os.listdir("/proc/self/fd") == before


def test_signals_are_read_in_order_and_handlers_put_back() -> None:
    """Both signals become something to select on, and what handled them before does so afterwards."""
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with Signals() as signals:
        assert signals.read() == []
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert awake(signals.fd)
        assert signals.read() == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]
        assert not awake(signals.fd)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


HELD_BACK = """
import os, signal, subprocess, sys
from tradewind.agent.watch import Signals, held_back
mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
with held_back():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    with Signals() as signals:
        assert sorted(signals.read()) == [signal.SIGINT, signal.SIGTERM]
        asked = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
        child = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
        assert child.stdout.strip() == str(mask), child.stdout
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
with held_back():
    assert {signal.SIGINT, signal.SIGTERM} <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
print("as it should be")
"""


def test_a_signal_held_back_arrives_when_someone_listens() -> None:
    """What arrives before the handlers are set ends nobody and is not lost, and children inherit no mask."""
    done = subprocess.run(
        [sys.executable, "-c", HELD_BACK], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("as it should be\n", "")
