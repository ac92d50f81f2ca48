"""A project to run: one script, in a working directory of its own, with its home beside it."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tradewind
from tests.services.agents import kill_agents

PRELUDE = """
import json, os, signal, sys, time
from pathlib import Path
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
def write(kind, **fields):
    line = json.dumps({"t": time.time(), "kind": kind, **fields}).encode() + b"\\n"
    fd = os.open(os.environ["TRADEWIND_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line)
    os.close(fd)
"""

Project = Callable[[str], Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A function that writes `main.py` into an empty project, the working directory; its home is beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(Path(tradewind.__file__).parents[1]))
    for name in ("TRADEWIND_STORE", "TRADEWIND_BLOBS"):
        monkeypatch.delenv(name, raising=False)

    def write(body: str) -> Path:
        path = folder / "main.py"
        path.write_text(PRELUDE + textwrap.dedent(body))
        return path

    yield write
    kill_agents()


Start = Callable[..., "subprocess.Popen[str]"]
TRADEWIND = [sys.executable, "-c", "from tradewind.cli.main import main; main()"]


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts `tradewind ...` as a process of its own, killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def begin(*args: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*TRADEWIND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


class Gate:
    """A place where a script waits for the test, and the test for the script."""

    def __init__(self, folder: Path) -> None:
        self.here, self.on = folder / "here", folder / "on"
        folder.mkdir(exist_ok=True)
        os.mkfifo(self.here)
        os.mkfifo(self.on)

    @property
    def script(self) -> str:
        """Python that says that it is here, and waits to go on.

        It leaves no file to a finalizer, where an exception of a signal handler would be lost.
        """
        return f"Path({str(self.here)!r}).write_text('here'); Path({str(self.on)!r}).read_text()"

    def reached(self) -> None:
        """Return once the script is there."""
        assert self.here.read_text() == "here"

    def opened(self) -> None:
        """Let the script go on."""
        self.on.write_text("on")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """A gate for one process at a time."""
    return Gate(tmp_path)
