"""One agent for a run: who holds it is known to every process, until it dies."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradewind.agent.lock import LOCK, held, is_held
from tradewind.errors import TradewindError

HOLDER = """
import os, signal, subprocess, sys
from pathlib import Path
from tradewind.agent.lock import held
with held(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(run_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds the run, and a child of it that outlives it."""
    command = [sys.executable, "-c", HOLDER, str(run_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def test_nobody_holds_a_run_that_was_never_started(tmp_path: Path) -> None:
    """Asking makes no file, in a folder that is there or not."""
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """While it is held a second agent is turned away, in this process too; afterwards it is free again."""
    for _ in range(2):
        with held(tmp_path):
            assert is_held(tmp_path)
            with pytest.raises(TradewindError, match="already running"), held(tmp_path):
                pytest.fail("held twice")
            assert is_held(tmp_path)
        assert not is_held(tmp_path)


def test_another_process_sees_it_and_a_kill_frees_it(tmp_path: Path) -> None:
    """A lock held elsewhere is seen here, and `kill -9` frees it at once although a child lives on."""
    with holder(tmp_path) as (process, child):
        assert is_held(tmp_path)
        with pytest.raises(TradewindError, match="already running"), held(tmp_path):
            pytest.fail("held twice")
        process.kill()
        process.wait()
        os.kill(child, 0)
        assert not is_held(tmp_path)
        with held(tmp_path):
            assert is_held(tmp_path)


def test_looking_never_turns_an_agent_away(tmp_path: Path) -> None:
    """While others ask all the time, an agent gets its lock at every try."""
    (tmp_path / LOCK).touch()
    code = (
        "import sys; from pathlib import Path; from tradewind.agent.lock import is_held\n"
        "print('asking', flush=True)\n"
        "while True: is_held(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
        try:
            assert asking.stdout is not None
            assert select.select([asking.stdout], [], [], 60)[0]
            for _ in range(2000):
                with held(tmp_path):
                    pass
        finally:
            asking.kill()
