"""Runs on this machine: what submitting lays out, and what is said of a run whose agent is gone."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.conftest import write
from tradewind.agent.lock import held, is_held
from tradewind.errors import SpecError, TradewindError
from tradewind.launch import files, local
from tradewind.launch.local import python_path, reconcile, resubmit, start_detached, submit
from tradewind.launch.plan import plan
from tradewind.spec import RunSpec
from tradewind.store import Attempt, Run, Store, open_store

SLEEPER = """
import os, signal
from pathlib import Path
Path(os.environ["TRADEWIND_RUN_DIR"], "worker.pid").write_text(str(os.getpid()))
with open(Path(os.environ["TRADEWIND_RUN_DIR"], "started"), "w") as started:
    started.write("up")
signal.pause()
"""


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The store of the home folder."""
    with open_store() as opened:
        yield opened


def read_code(run: Run) -> dict[str, str]:
    """The files that a run was given."""
    code = Path(run.dir, "code")
    return {str(p.relative_to(code)): p.read_text() for p in code.rglob("*") if p.is_file()}


def test_workers_of_all_hosts_run_on_this_one(root: Path, store: Store) -> None:
    """A spec for two hosts runs here as it is, with as many workers; the plan says so."""
    write(root, {"train.py": "print(1)"})
    spec = RunSpec(script="train.py", workers=2, hosts=2, min_hosts=1)
    stored = store.run(submit(spec, store, cwd=root).id).spec
    assert (stored["workers"], stored["hosts"], stored["min_hosts"]) == (2, 1, 0)
    assert "asks for 2 hosts: all 2 workers run on this one" in plan(spec, root).notes


def test_a_submitted_run_has_its_own_copy_of_the_code(root: Path, home: Path, store: Store) -> None:
    """The run folder holds the bytes as they were, and what is stored is enough to run them."""
    write(root, {".gitignore": "*.log\n", "jobs/train.py": "print(1)", "lib.py": "x = 1", "noise.log": ""})
    spec = RunSpec(script="train.py", args=("--lr", "0.1"), workers=2, env={"A": "b"}, max_restarts=5)
    run = submit(spec, store, cwd=root / "jobs")
    write(root, {"jobs/train.py": "print(2)"})
    assert read_code(run) == {".gitignore": "*.log\n", "jobs/train.py": "print(1)", "lib.py": "x = 1"}
    found = store.run(run.id)
    assert (found.state, found.name, Path(found.dir)) == ("pending", "train", home / "runs" / run.id)
    stored = {
        "script": "train.py",
        "workdir": "jobs",
        "args": ["--lr", "0.1"],
        "workers": 2,
        "env": {"A": "b"},
    }
    assert stored.items() <= found.spec.items()
    assert (Path(run.dir) / "checkpoints").is_dir()


def test_the_project_is_looked_at_once(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan and the snapshot of one submit share one listing."""
    write(root, {"train.py": ""})
    asked = []
    monkeypatch.setattr(files, "git_names", lambda folder: asked.append(folder) or ["train.py"])
    submit(RunSpec(script="train.py"), store, cwd=root)
    assert asked == [root]


def test_checkpoints_can_lie_elsewhere(root: Path, tmp_path: Path, store: Store) -> None:
    """A spec that names a checkpoint folder gets it, made if need be, and two runs can share it."""
    write(root, {"train.py": ""})
    spec = RunSpec(script="train.py", checkpoint_dir=str(tmp_path / "shared" / "ckpt"))
    for run in (submit(spec, store, cwd=root), submit(spec, store, cwd=root)):
        assert (Path(run.dir) / "checkpoints").resolve() == tmp_path / "shared" / "ckpt"


@pytest.mark.parametrize("name", ["last", None])
def test_a_run_that_cannot_be_made_leaves_nothing(
    root: Path, home: Path, store: Store, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """When the store refuses the run, or its code cannot be laid out, no folder stays and no run is known."""
    write(root, {"train.py": ""})
    if name is None:
        monkeypatch.setattr(local, "checkout", broken_checkout)
    with pytest.raises(SpecError):
        submit(RunSpec(script="train.py", name=name), store, cwd=root)
    assert list((home / "runs").iterdir()) == []
    assert store.runs() == []


def broken_checkout(*_: object) -> None:
    """A checkout that fails half way."""
    raise SpecError("no")


def test_resubmitting_runs_the_very_bytes(root: Path, store: Store) -> None:
    """However the project changed since, a run can be made again from its snapshot, arguments included."""
    write(root, {"train.py": "print(1)", "pkg/a.py": "a"})
    first = submit(RunSpec(script="train.py", args=("7",)), store, cwd=root)
    write(root, {"train.py": "print(2)", "more.py": ""})
    (root / "pkg/a.py").unlink()
    again = resubmit(first, store)
    assert again.id != first.id
    assert (again.snapshot, again.spec, again.name) == (first.snapshot, first.spec, first.name)
    assert read_code(again) == read_code(first) == {"train.py": "print(1)", "pkg/a.py": "a"}
    with pytest.raises(TradewindError, match="no code snapshot"):
        resubmit(Run(id="x", name="x", created_s=1.0), store)


def test_imports_of_the_project_come_from_its_snapshot(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Import paths below the project are kept, relative to it; installed packages and others are not."""
    write(root, {"train.py": "", "src/a.py": "", "lib/b.py": "", ".venv/lib/site-packages/c.py": ""})
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = [str(root / "src"), str(root)]
    monkeypatch.setattr(sys, "path", ["/bin", *kept, str(root / ".venv/lib/site-packages"), str(outside)])
    monkeypatch.setenv("PYTHONPATH", f"{root / 'lib'}::{root / 'none'}:{root / 'src'}")
    assert python_path(plan(RunSpec(script="train.py"), root)) == ["lib", "src", "."]


def running(root: Path, store: Store) -> Run:
    """A detached run whose worker is up."""
    write(root, {"train.py": SLEEPER})
    run = submit(RunSpec(script="train.py"), store, cwd=root)
    os.mkfifo(Path(run.dir, "started"))
    pid = start_detached(run, store)
    assert (store.run(run.id).pid, is_held(Path(run.dir))) == (pid, True)
    assert Path(run.dir, "started").read_text() == "up"  # Blocks until the worker writes.
    while not store.attempts(run.id):  # The agent records an attempt once all of its workers are placed.
        assert is_held(Path(run.dir))
    return store.run(run.id)


def wait_for_end(pid: int) -> None:
    """Return once the process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], 60)[0], f"{pid} did not end"
    finally:
        os.close(pidfd)


def test_a_run_whose_agent_was_killed_is_failed(root: Path, store: Store) -> None:
    """While the agent lives its run is left alone; after `kill -9` of it run and attempt are failed, workers gone."""
    run = running(root, store)
    worker = int(Path(run.dir, "worker.pid").read_text())
    assert run.pid is not None
    try:
        assert (run.state, is_held(Path(run.dir))) == ("running", True)
        assert reconcile(run, store) == run
    finally:
        os.kill(run.pid, signal.SIGKILL)
    wait_for_end(run.pid)
    wait_for_end(worker)
    found = reconcile(run, store)
    assert (found.state, found.exit_code) == ("failed", 1)
    assert found.ended_s is not None
    assert store.run(run.id) == found
    assert [(a.state, a.reason) for a in store.attempts(run.id)] == [("failed", "its agent died")]
    assert reconcile(found, store) == found


def test_only_what_is_known_to_be_dead_is_called_dead(tmp_path: Path, store: Store) -> None:
    """A run that ended, waits, is held, or has its folder on another machine keeps its state."""
    for id, state, there in [("a", "succeeded", True), ("b", "pending", True), ("c", "running", False)]:
        if there:
            (tmp_path / id).mkdir()
        run = store.add_run(Run(id=id, name=id, created_s=1.0, state=state, dir=str(tmp_path / id)))
        assert reconcile(run, store) == run
    (tmp_path / "d").mkdir()
    run = store.add_run(Run(id="d", name="d", created_s=1.0, state="running", dir=str(tmp_path / "d")))
    store.add_attempt(Attempt(run="d", index=0, state="running"))
    with held(tmp_path / "d"):
        assert reconcile(run, store) == run
    assert reconcile(run, store).state == "failed"


def test_a_run_that_ends_while_it_is_looked_at(tmp_path: Path, store: Store) -> None:
    """An agent that ended well between two looks is believed: what it said last stands."""
    run = store.add_run(Run(id="a", name="a", created_s=1.0, state="running", dir=str(tmp_path)))
    store.update_run("a", state="succeeded", ended_s=2.0, exit_code=0)
    found = reconcile(run, store)
    assert (found.state, found.exit_code) == ("succeeded", 0)
    assert store.run("a").state == "succeeded"


def test_an_agent_that_cannot_start_says_why(tmp_path: Path, store: Store) -> None:
    """Its last words are in the error, and the run is failed rather than pending for ever."""
    (tmp_path / "run").mkdir()
    run = store.add_run(Run(id="a", name="a", created_s=1.0, spec={}, dir=str(tmp_path / "run")))
    with pytest.raises(TradewindError, match=r"its agent did not start:(.|\n)*KeyError: 'script'"):
        start_detached(run, store)
    assert (store.run("a").state, store.run("a").exit_code) == ("failed", 1)


def test_modules_of_the_project_do_not_break_its_agent(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detached agent starts in a folder whose files are called like modules of Python."""
    write(root, {"selectors.py": "raise SystemExit('mine')", "queue.py": "raise SystemExit('mine')"})
    monkeypatch.chdir(root)
    run = running(root, store)
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    wait_for_end(run.pid)
