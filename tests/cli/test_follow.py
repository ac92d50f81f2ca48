"""`tradewind logs`, once and while it grows."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Gate, Project, Start
from tradewind.agent.watch import FolderWatch
from tradewind.cli import follow
from tradewind.cli.follow import attempt_folders, follow_logs, log_files, wakes
from tradewind.cli.main import invoke
from tradewind.errors import TradewindError
from tradewind.store import Run


def test_following_goes_on_through_restarts_until_the_end(
    project: Project, start: Start, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    """`logs -f` prints lines as they are written, of every attempt, and ends with the run; a torn last line too."""
    project(f"""
        print("attempt", restart, flush=True)
        {gate.script}
        print("going on", flush=True)
        if restart == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        print("no newline at the end", end="", flush=True)
    """)
    assert invoke(["run", "main.py", "--detach"]) == 0
    run = capsys.readouterr().out.strip()
    gate.reached()
    following = start("logs", run, "--follow")
    assert following.stdout is not None
    assert following.stdout.readline() == "[rank0] attempt 0\n"
    gate.opened()
    gate.reached()
    assert following.stdout.readline() == "[rank0] going on\n"
    assert following.stdout.readline() == "[rank0] attempt 1\n"
    gate.opened()
    out, err = following.communicate(timeout=60)
    assert out == "[rank0] going on\n[rank0] no newline at the end\n"
    assert (err, following.returncode) == ("", 0)


def test_following_one_rank(project: Project, start: Start, gate: Gate) -> None:
    """With `--rank` only that rank's lines are printed, as they are."""
    project(f"""
        print("I am", rank, flush=True)
        if rank == 1:
            {gate.script}
    """)
    assert invoke(["run", "main.py", "--workers", "2", "--detach"]) == 0
    gate.reached()
    following = start("logs", "last", "-f", "--rank", "1")
    assert following.stdout is not None
    assert following.stdout.readline() == "I am 1\n"
    gate.opened()
    assert following.communicate(timeout=60)[0] == ""


def test_following_a_run_that_has_ended_prints_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to wait for: the logs are printed once, after the first failure."""
    project("print('done'); sys.exit(3)")
    assert invoke(["run", "main.py", "--max-restarts", "0"]) == 1
    capsys.readouterr()
    assert invoke(["logs", "last", "-f"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0][:14], lines[-1]) == ("first failure:", "[rank0] done")


def test_attempts_that_pass_unseen_are_printed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever was written between two looks is printed: the rest of one attempt, and all of the next ones."""
    run = Run(id="r", name="r", created_s=1.0, dir=str(tmp_path), pid=1)

    def write(attempt: int, text: str) -> None:
        path = tmp_path / "logs" / f"attempt{attempt}" / "rank0.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)

    def looks(*_: object) -> Iterator[bool]:
        yield False
        write(1, "its end\n")
        write(2, "the second\n")
        write(3, "the third\n")
        yield True

    monkeypatch.setattr(follow, "wakes", looks)
    write(0, "before it was followed\n")
    write(1, "first\n")
    follow_logs(run, None, None)
    lines = [line.removeprefix("[rank0] ") for line in capsys.readouterr().out.splitlines()]
    assert lines == ["first", "its end", "the second", "the third"]
    follow_logs(run, 0, 2)
    assert capsys.readouterr().out == "the second\nthe second\n"


def test_a_run_that_was_never_started_cannot_be_followed(tmp_path: Path) -> None:
    """Waiting for a run that nobody runs would never end, so it is refused."""
    run = Run(id="r", name="r", created_s=1.0, dir=str(tmp_path))
    with pytest.raises(TradewindError, match="run r has not been started"):
        follow_logs(run, None, None)


def test_logs_come_by_number_and_not_by_letter(tmp_path: Path) -> None:
    """The tenth attempt is after the ninth and the tenth rank after the ninth; the last attempt is the default."""
    run = Run(id="r", name="r", created_s=1.0, dir=str(tmp_path))
    assert log_files(run, None, None) == []
    for attempt in (0, 9, 10):
        folder = tmp_path / "logs" / f"attempt{attempt}"
        folder.mkdir(parents=True)
        for rank in (0, 9, 10):
            (folder / f"rank{rank}.log").touch()
        (folder / "rank0.error.json").touch()
    (tmp_path / "logs" / "standby.log").touch()
    assert [f.name for f in attempt_folders(run)] == ["attempt0", "attempt9", "attempt10"]
    found = log_files(run, None, None)
    assert [(f.parent.name, f.name) for f in found] == [
        ("attempt10", f"rank{rank}.log") for rank in (0, 9, 10)
    ]
    assert [str(f.relative_to(tmp_path)) for f in log_files(run, 9, 0)] == ["logs/attempt0/rank9.log"]
    assert log_files(run, 1, None) == []


def test_a_process_that_is_gone_wakes_once(tmp_path: Path) -> None:
    """Of a process that has ended already, only its end is seen."""
    process = subprocess.Popen(["true"])
    process.wait()
    with FolderWatch() as files:
        files.add(tmp_path)
        assert list(wakes(process.pid, files)) == [True]
