"""The loop's checkpoints, written in the background from memory: what waits, what fails, what has no room."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.train import workers
from tests.train.disks import Disk, SmallMemory
from tradewind import names, train
from tradewind.errors import TradewindError
from tradewind.train import checkpoint, generation, ledger
from tradewind.train.checkpoint import pace


class Job:
    """A model of a few megabytes, trained by a loop whose state is staged into memory."""

    def __init__(self, folder: Path, steps: int = 8, **arguments: Any) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.model = nn.Linear(600, 600)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        data = train.Batches(8 * steps, 8, epochs=1)
        chosen: dict[str, Any] = {"every_steps": 2, "max_recompute": 1} | arguments
        self.loop = train.Loop(
            model=self.model, optimizer=optimizer, data=data, checkpoint_dir=folder / "checkpoints", **chosen
        )
        self._optimizer = optimizer

    def steps(self) -> Iterator[int]:
        """Train, pausing in the body of each step."""
        for _ in self.loop:
            self._optimizer.zero_grad()
            self.model(torch.ones(2, 600)).square().mean().backward()
            self._optimizer.step()
            yield self.loop.step

    def run(self) -> "Job":
        """Train to the end."""
        list(self.steps())
        return self

    @property
    def saved(self) -> list[int]:
        """Steps with a checkpoint."""
        return checkpoint.steps(self.folder / "checkpoints")


@pytest.fixture
def home(shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for a run whose state is staged, as in a worker of Tradewind; the loop is left afterwards."""
    # The status page and the debugger's socket are the agent's to watch, and not of interest here.
    monkeypatch.setattr(train.loop, "be_watched", lambda ledger: None)
    monkeypatch.setenv(names.ENV_MEMORY, str(shm))
    monkeypatch.setenv(names.ENV_JOURNAL, str(tmp_path / "journal.jsonl"))
    yield tmp_path
    generation.leave()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk to disturb."""
    return Disk(monkeypatch)


def journal(home: Path, kind: str) -> list[dict[str, Any]]:
    """What was written down, of one kind."""
    lines = (home / "journal.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


def savers() -> list[str]:
    """Threads that write checkpoints."""
    return [thread.name for thread in threading.enumerate() if thread.name == "tradewind-saver"]


def test_training_goes_on_while_a_checkpoint_is_written(home: Path, disk: Disk) -> None:
    """Steps are committed while the disk stands still; what came meanwhile is skipped, the end is durable."""
    job = Job(home)
    disk.open.clear()
    for step in job.steps():
        if step == 7:
            assert disk.reached.acquire(timeout=60)
            assert job.saved == []
            disk.open.set()
            job.loop._keeper._disk.settle()
    assert job.saved == [2, 8]
    assert [(entry["step"], entry["skipped"]) for entry in journal(home, "checkpoint")] == [(2, 2), (8, 2)]
    assert all(entry["bytes"] > 2_000_000 for entry in journal(home, "checkpoint"))
    loaded = checkpoint.load(home / "checkpoints" / "step-000000000008")
    assert torch.equal(loaded.shared["model"]["weight"], job.model.weight)
    assert savers() == []


def test_only_what_holds_up_training_is_stall(home: Path, disk: Disk) -> None:
    """The time of the disk, which is longer than the run, is not in the ledger's checkpoint stall."""
    job = Job(home, every_steps=3)
    disk.open.clear()
    for step in job.steps():
        if step == 4:
            assert disk.reached.acquire(timeout=60)
            stalled = job.loop._ledger.spent_ns()["checkpoint_stall"]
            threading.Event().wait(0.5)  # The disk's time, while the body of a step goes on.
            assert job.loop._ledger.spent_ns()["checkpoint_stall"] == stalled
            disk.open.set()
    first = journal(home, "checkpoint")[0]
    assert first["seconds"] >= 0.5
    assert first["stall_s"] < 0.5


def test_a_failed_write_warns_and_the_next_is_tried(
    home: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk costs that checkpoint, is reported in the log and as an event, and leaves nothing lying about."""
    disk.fail_next = 1
    job = Job(home, keep=9)
    with caplog.at_level(logging.WARNING):
        for step in job.steps():
            job.loop._keeper._disk.settle()  # So that no checkpoint is skipped.
            if step == 3:
                assert job.saved == []
                assert list((home / "checkpoints").iterdir()) == []
    assert disk.failures == 1
    assert job.saved == [4, 6, 8]
    (warning,) = journal(home, "warning")
    assert warning["what"] == "checkpoint_failed"
    assert "step 2 was not written: rank 0: [Errno 28] No space left on device" in warning["why"]
    assert [record.message for record in caplog.records] == [
        f"tradewind: checkpoint failed: {warning['why']}"
    ]


def test_a_folder_that_cannot_be_written_fails_the_end(home: Path) -> None:
    """Failing on the way is a warning each time; failing at the end is the run's error."""
    (home / "checkpoints").write_text("a file where a folder should be")
    job = Job(home, steps=4)
    with pytest.raises(TradewindError, match=r"step 4 was not written: rank 0: .*Not a directory"):
        job.run()
    assert {entry["what"] for entry in journal(home, "warning")} == {"checkpoint_failed"}
    assert journal(home, "end") == []
    assert savers() == []


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (2, ["checkpoints are written while training waits"]),
        (1, ["checkpoints are written while training waits", "nothing is kept in memory"]),
        (0, ["checkpoints are written while training waits", "nothing is kept in memory"]),
    ],
)
def test_memory_without_room_is_done_without(
    images: int, said: list[str], home: Path, shm: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less room than three images training writes while it waits, or forgoes memory, says so once, and goes on."""
    small = SmallMemory(monkeypatch, images)
    job = Job(home, steps=12, keep=20)
    disk.open.clear()  # With room for a third image, steps would be staged while this one is written.
    for step in job.steps():
        if step == 4:
            disk.open.set()
    assert small.refused > 0
    warnings = journal(home, "warning")
    assert [entry["what"] for entry in warnings] == ["less_memory"] * len(said)
    assert all(text in entry["why"] for text, entry in zip(said, warnings, strict=True))
    assert all("/dev/shm" in entry["why"] for entry in warnings)
    assert {8, 10, 12} <= set(job.saved)
    assert len(list(shm.glob("*.image"))) == (2 if images == 2 else 0)
    again = Job(home, steps=12)
    assert again.loop.step == 12
    assert torch.equal(again.model.weight, job.model.weight)


def test_what_memory_was_to_keep_is_written_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any room the step after which memory is given up is on disk, long before a checkpoint is due."""
    SmallMemory(monkeypatch, images=0)
    job = Job(home, every_steps=100, keep=9)
    for step in job.steps():
        if step == 4:
            break
    assert job.saved == [2, 3]


def test_leaving_early_finishes_what_was_begun(home: Path) -> None:
    """After a `break` the checkpoint that was being written is whole, and no thread is left."""
    job = Job(home)
    for step in job.steps():
        if step == 4:
            break
    job = Job(home)
    assert job.loop.step == 4
    assert job.saved[-1] in (2, 4)
    assert journal(home, "checkpoint")[-1]["step"] == job.saved[-1]
    assert savers() == []


def test_entering_again_in_place_leaves_nothing_behind(
    home: Path, shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that leaves while a checkpoint is written goes on from memory, without the old thread or image."""
    monkeypatch.setattr(pace, "SHARE", 1e-9)
    monkeypatch.setattr(ledger, "begin_again", lambda: None)  # The ledger is this whole process's.
    for attempt in range(4):
        monkeypatch.setenv(names.ENV_ATTEMPT, str(attempt))
        job = Job(home, steps=40)
        assert job.loop.step == 3 * attempt
        steps = job.steps()
        for step in steps:
            if step == 3 * attempt + 3:
                break
        assert len(savers()) == 1
        generation.leave()
        assert savers() == []
        steps.close()  # type: ignore[attr-defined]
        generation.enter()
    assert job.saved == []
    assert len(list(shm.glob("*.image"))) <= 4
    assert {entry["tier"] for entry in journal(home, "resume")} == {"memory"}


TOGETHER = """
import os, sys
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tradewind import train

MODE = os.environ["MODE"]
with train.distributed() as ctx:
    if MODE == "small" and ctx.rank == 1:
        allocate, left = os.posix_fallocate, [1]
        def refuse(*given):
            if not left:
                raise OSError(28, "No space left on device")
            left.pop()
            allocate(*given)
        os.posix_fallocate = refuse
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(600, 600))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = train.Loop(
        model=model, optimizer=optimizer, data=train.Batches(96, 8, epochs=1), every_steps=3, max_recompute=1, keep=9
    )
    for indices in loop:
        optimizer.zero_grad()
        model(torch.ones(len(indices), 600)).square().mean().backward()
        optimizer.step()
        if MODE == "break" and loop.step == 9:
            break
"""


def together(folder: Path, shm: Path, mode: str) -> list[dict[str, Any]]:
    """Two workers train; what rank 0 wrote down."""
    done = workers.run(folder, 2, script=TOGETHER, MODE=mode, **{names.ENV_MEMORY: str(shm)})
    assert [code for code, _ in done] == [0, 0], done
    return [json.loads(line) for line in (folder / "rank0.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_one_worker_without_room_takes_all_along(tmp_path: Path, shm: Path) -> None:
    """When one worker's memory is full both do without it from the same step on, and say why; nothing is lost."""
    entries = together(tmp_path, shm, "small")
    warnings = [entry for entry in entries if entry["kind"] == "warning"]
    assert [entry["what"] for entry in warnings] == ["less_memory", "less_memory"]
    assert "another worker has no room in memory" in warnings[-1]["why"]
    assert not list(shm.glob("*.image"))
    saved = checkpoint.steps(tmp_path / "checkpoints")
    assert {6, 9, 12} <= set(saved)
    for rank in range(2):
        assert checkpoint.load(tmp_path / "checkpoints" / "step-000000000012", rank).step == 12


@pytest.mark.slow
def test_workers_that_leave_early_finish_what_was_begun(tmp_path: Path, shm: Path) -> None:
    """After a `break` on all workers the checkpoint of the step before it is whole when they have ended."""
    entries = together(tmp_path, shm, "break")
    saved = checkpoint.steps(tmp_path / "checkpoints")
    skipped = [entry["skipped"] for entry in entries if entry["kind"] == "checkpoint"][-1]
    assert len(saved) + skipped == 3
    assert [entry["step"] for entry in entries if entry["kind"] == "checkpoint"] == saved
    checkpoint.verify(tmp_path / "checkpoints" / f"step-{saved[-1]:012d}")
    assert list((tmp_path / "checkpoints").glob(".writing-*")) == []
