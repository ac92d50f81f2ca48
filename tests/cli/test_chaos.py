"""`tradewind chaos` on a real run."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.test_chaos import SCRIPT
from tradewind.cli.main import invoke
from tradewind.names import ExitCode
from tradewind.store import open_store


@pytest.fixture
def agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[int]:
    """A run of two workers in the background; gives its agent's process id."""
    (tmp_path / "main.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRADEWIND_STORE", raising=False)
    assert invoke(["run", "main.py", "--workers", "2", "--max-restarts", "9", "--detach"]) == ExitCode.OK
    capsys.readouterr()
    with open_store() as store:
        pid = store.run("last").pid
    assert pid is not None, "the agent writes its number before the command returns"
    yield pid
    os.waitpid(pid, 0)


def test_it_injects_counts_and_ends_with_the_run(agent: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Injections come once a period until the run is over; what is printed is what the run's events say."""
    words = ["--kill-every", "200ms", "--duration", "60s", "--rank", "1", "--seed", "3", "-o", "json"]
    assert invoke(["chaos", "last", "--signal", "STOP", "--continue-after", "50ms", *words]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["stop"] == len(found["done"]) >= 1
    assert found["counts"]["stop"] + found["missed"] == 300
    with open_store() as store:
        events = store.events(found["run"], kind="injected")
        assert store.run("last").state == "succeeded"
    assert [(e.rank, e.data["pid"]) for e in events] == [(1, done["pid"]) for done in found["done"]]


def test_what_makes_no_sense_is_refused(agent: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A rank that is not there, an unknown signal and a continued kill are errors that name the choices."""
    for words, said in (
        (["--rank", "2"], "ranks 0 to 1"),
        (["--signal", "SEGV"], "KILL, TERM, STOP"),
        (["--continue-after", "1s"], "--signal STOP"),
    ):
        assert invoke(["chaos", "last", *words]) != ExitCode.OK
        assert said in capsys.readouterr().err


def test_a_run_that_is_over_is_left_alone(agent: int, capsys: pytest.CaptureFixture[str]) -> None:
    """After the run has ended there is nothing to hurt, and the command says so."""
    os.waitid(os.P_PID, agent, os.WEXITED | os.WNOWAIT)
    assert invoke(["chaos", "last"]) == ExitCode.FAILED
    assert "does not run here; it is succeeded" in capsys.readouterr().err
