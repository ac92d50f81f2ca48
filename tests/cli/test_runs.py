"""`tradewind run` and its sisters, end to end with real processes and the real store."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tradewind.cli.main import invoke

PRELUDE = """
import json, os, signal, sys, time
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
def write(kind, **fields):
    line = json.dumps({"t": time.time(), "kind": kind, **fields}).encode() + b"\\n"
    fd = os.open(os.environ["TRADEWIND_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line)
    os.close(fd)
"""

Project = Callable[[str], Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A function that writes `main.py` into an empty project, the working directory; its home is beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRADEWIND_STORE", raising=False)

    def write(body: str) -> Path:
        path = folder / "main.py"
        path.write_text(PRELUDE + textwrap.dedent(body))
        return path

    return write


def shown(capsys: pytest.CaptureFixture[str], run: str = "last") -> dict[str, Any]:
    """What `show -o json` says."""
    capsys.readouterr()
    assert invoke(["show", run, "-o", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_group_restarts_after_a_kill(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """A rank killed with SIGKILL makes the whole group start again, and the run succeed."""
    project("""
        write("step", step=1)
        if restart == 0 and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if restart == 0:
            signal.pause()
        write("step", step=2)
    """)
    assert invoke(["run", "main.py", "--workers", "2"]) == 0
    found = shown(capsys)
    assert [a["state"] for a in found["attempts"]] == ["failed", "succeeded"]
    assert found["failures"][0]["rank"] == 1
    assert found["failures"][0]["class"] == "killed"
    assert len(found["recovered_s"]) == 1
    assert sum(found["ledger"].values()) == pytest.approx(found["wall_s"], abs=1e-6)


@pytest.mark.parametrize(
    ("code", "expected", "state", "attempts"),
    [
        (0, 0, "succeeded", 1),
        (1, 1, "failed", 2),
        (75, 75, "requeued", 1),
        (65, 65, "failed", 1),
        (2, 65, "failed", 1),
    ],
)
def test_exit_code_is_intent(
    project: Project, capsys: pytest.CaptureFixture[str], code: int, expected: int, state: str, attempts: int
) -> None:
    """What a worker exits with decides the run's exit code and whether it is tried again."""
    project(f"sys.exit({code})")
    assert invoke(["run", "main.py", "--max-restarts", "1"]) == expected
    found = shown(capsys)
    assert (found["run"]["state"], len(found["attempts"])) == (state, attempts)


def test_rerun_runs_the_same_bytes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """`rerun` executes the code as it was, with its arguments, whatever the working tree is now."""
    project("print('first', sys.argv[1:])")
    assert invoke(["run", "main.py", "--", "--lr", "0.1"]) == 0
    project("print('second')")
    capsys.readouterr()
    assert invoke(["rerun", "last"]) == 0
    assert "first ['--lr', '0.1']" in capsys.readouterr().out


def test_dry_run_writes_nothing(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dry-run` prints the plan and leaves no home folder behind."""
    project("print('ran')")
    assert invoke(["run", "main.py", "--workers", "2", "--dry-run", "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["script"], plan["workers"], plan["files"]) == ("main.py", 2, 1)
    assert not (tmp_path / "home").exists()
