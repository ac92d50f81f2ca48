"""What is said of a run on a cluster while it is followed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tradewind.cli.attend import attend
from tradewind.store import Attempt, Run, Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that knows the run `r` and why its only attempt failed."""
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as opened:
        opened.add_run(Run(id="r", name="train", created_s=1.0))
        opened.add_attempt(Attempt(run="r", index=0, state="failed", reason="host 0 ran out of memory"))
        yield opened


def ended(exit_code: int | None) -> Callable[[Run, Store], Run]:
    """A cluster that says how the run ended."""
    return lambda run, store: store.update_run(run.id, state="failed", exit_code=exit_code)


def unasked(*_: object) -> Run:
    """Nobody asks a cluster."""
    raise AssertionError("asked")


@pytest.mark.parametrize(("exit_code", "expected"), [(65, 65), (0, 0), (None, 1)])
def test_a_followed_run_ends_with_its_exit_code_and_its_reason(
    exit_code: int | None, expected: int, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is comes first, then what it prints, then how it ended; an end that nobody knows is a failure."""
    run = store.run("r")
    code = attend(
        run, store, "Job a in b", lambda: print("step 1"), ended(exit_code), detach=False, output="table"
    )
    said = capsys.readouterr()
    assert code == expected
    assert said.out == "step 1\n"
    assert said.err == "run r (train): Job a in b\nrun r: failed: host 0 ran out of memory\n"


def test_json_is_the_runs_row(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output holds the end of the run alone, or when it is detached its beginning."""
    run = store.run("r")
    attend(run, store, "here", lambda: None, ended(65), detach=False, output="json")
    assert json.loads(capsys.readouterr().out)["exit_code"] == 65
    attend(run, store, "here", unasked, unasked, detach=True, output="json")
    assert json.loads(capsys.readouterr().out)["id"] == "r"


def test_ctrl_c_leaves_the_run_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Who stops following is told how to follow again, and nobody asks how the run ended."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attend(store.run("r"), store, "here", interrupted, unasked, detach=False, output="table")
    assert "run r goes on; `tradewind logs -f r`" in capsys.readouterr().err
    assert store.run("r").state == "pending"


def test_detached_it_prints_its_id(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else, for a script to go on with."""
    assert attend(store.run("r"), store, "here", unasked, unasked, detach=True, output="table") == 0
    assert capsys.readouterr() == ("r\n", "")
