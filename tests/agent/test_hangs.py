"""What the hang watch makes of what workers say."""

import os
import socket
import time
from pathlib import Path

import pytest

from tradewind.agent import hangs
from tradewind.agent.group import Group
from tradewind.agent.hangs import HangWatch
from tradewind.agent.job import Job
from tradewind.agent.place import Place
from tradewind.agent.worker import LocalWorker, read_phase
from tradewind.diagnose.hang import PHASES_S
from tradewind.train.status import Status


def watch_of(folder: Path, workers: int = 2) -> HangWatch:
    """A watch that has just been given a new group."""
    job = Job(run="r", run_dir=folder, workdir=folder, script="train.py", workers=workers)
    watch = HangWatch(job)
    watch.begin(Group(workers), 0)
    return watch


def say(watch: HangWatch, rank: int, kind: str, **fields: int) -> None:
    """One journal entry of a rank."""
    watch.journal(rank, {"kind": kind, "t": time.time(), **fields})


def test_a_group_is_watched_once_every_rank_has_a_loop(tmp_path: Path) -> None:
    """A script without a loop gives no signs, so nothing is looked at until all ranks have made one."""
    watch = watch_of(tmp_path)
    say(watch, 0, "start")
    assert watch.look_at is None
    say(watch, 1, "start")
    assert watch.look_at is not None
    watch.stop()
    assert watch.look_at is None


def test_a_group_after_one_with_loops_is_watched_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should it never come together, that is a hang after the allowance for a start-up, and no sooner."""
    watch = watch_of(tmp_path)
    watch.begin(Group(2), 0)
    assert watch.look_at is None
    for rank in range(2):
        say(watch, rank, "start")
    watch.begin(Group(2, attempt=1), 7)
    assert watch.look_at is not None
    say(watch, 0, "start")
    began = time.time()
    monkeypatch.setattr(hangs.time, "time", lambda: began + PHASES_S["startup"] - 1)
    assert watch.overdue() is None
    monkeypatch.setattr(hangs.time, "time", lambda: began + PHASES_S["startup"] + 1)
    hang = watch.overdue()
    assert hang is not None
    assert (hang.ranks, hang.step) == ((0, 1), 8)


def test_a_script_may_make_one_loop_after_another(tmp_path: Path) -> None:
    """What ranks say in a second loop is taken in, though a rank is no longer watched after its first has ended."""
    watch = watch_of(tmp_path)
    for _ in range(2):
        for rank in range(2):
            say(watch, rank, "start")
            say(watch, rank, "step", step=1)
        for rank in range(2):
            say(watch, rank, "end", step=1)
    assert watch.look() is None


def test_a_worker_shows_its_phase(tmp_path: Path) -> None:
    """What a worker puts on its status page is what the agent reads; without a page there is no phase."""
    page = tmp_path / "rank0.status"
    assert read_phase(page) is None
    status = Status(page)
    for phase in ("checkpoint_stall", "compute"):
        status.say(phase)
        assert read_phase(page) == phase


def test_a_worker_in_another_place_shows_the_phase_of_that_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parked worker that goes on as another rank is looked for on that rank's page."""
    monkeypatch.setattr(Job, "memory_dir", tmp_path)
    job = Job(run="r", run_dir=tmp_path, workdir=tmp_path, script="train.py", workers=2)
    before, after = (
        Place(attempt=rank, restarts=0, rank=rank, world=2, local_rank=rank, local_world=2, port=1)
        for rank in range(2)
    )
    pages = [Status(job.status(rank)) for rank in range(2)]
    for page, phase in zip(pages, ("compute", "restore"), strict=True):
        page.say(phase)
    control, other_end = socket.socketpair()
    with control, other_end:
        worker = LocalWorker(job, before, os.getpid(), -1, control, lambda pid: 0)
        assert worker.sign().phase == "compute"
        worker.enter(after, {}, tmp_path / "log")
        assert worker.sign().phase == "restore"
