"""The loop in one process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.train import workers
from tradewind import names, train
from tradewind.errors import SpecError

QUICK_START = """
import torch
from tradewind import train

model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loop = train.Loop(model=model, optimizer=optimizer, data=train.Batches(12, 3, epochs=2))
for indices in loop:
    loss = model(torch.ones(len(indices), 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loop.log(loss=loss)
print(loop.step)
"""


def test_runs_under_plain_python(tmp_path: Path) -> None:
    """With nothing set a script runs, keeps its state in ./checkpoints, and says nothing."""
    command = [sys.executable, "-W", "error", "-c", QUICK_START]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=tmp_path, env=workers.environment(0, 1, 0), capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "8\n", "")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000000008"]


class Job:
    """A model with its optimizer, trained for a few steps."""

    def __init__(self, folder: Path, data: Any = None, **arguments: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.data = data if data is not None else train.Batches(20, 4, epochs=4)
        self.seen: list[Any] = []
        self.loop = train.Loop(
            model=self.model, optimizer=self.optimizer, data=self.data, checkpoint_dir=folder, **arguments
        )

    def steps(self) -> Iterator[int]:
        """Train, pausing in the body of each step."""
        for batch in self.loop:
            self.seen.append(getattr(batch, "tolist", lambda batch=batch: batch)())
            self.optimizer.zero_grad()
            self.model(torch.ones(4, 3)).sum().backward()
            self.optimizer.step()
            yield self.loop.step

    def run(self) -> "Job":
        """Train to the end."""
        list(self.steps())
        return self

    def weights(self) -> list[float]:
        """All weights."""
        return torch.cat([p.detach().flatten() for p in self.model.parameters()]).tolist()


def test_a_run_in_pieces_equals_one_in_one_go(tmp_path: Path) -> None:
    """Stopping after some steps and going on gives the same batches and weights, dropout included."""
    whole = Job(tmp_path / "whole").run()
    first = Job(tmp_path / "pieces", max_steps=7).run()
    second = Job(tmp_path / "pieces", max_steps=8).run()
    third = Job(tmp_path / "pieces").run()
    assert [len(job.seen) for job in (first, second, third)] == [7, 1, 12]
    assert first.seen + second.seen + third.seen == whole.seen
    assert third.weights() == whole.weights()


def test_a_finished_run_started_again_does_nothing(tmp_path: Path) -> None:
    """Started again at its end a run loads its weights, takes no step and writes no checkpoint."""
    done = Job(tmp_path).run()
    stamp = (tmp_path / "step-000000000020" / "manifest.json").stat().st_mtime_ns
    again = Job(tmp_path).run()
    assert again.seen == []
    assert (again.loop.step, again.weights()) == (20, done.weights())
    assert (tmp_path / "step-000000000020" / "manifest.json").stat().st_mtime_ns == stamp


def test_stop_makes_this_step_the_last_for_good(tmp_path: Path) -> None:
    """After `stop` the step is committed, the loop ends, and a later start does not go on."""
    job = Job(tmp_path)
    for step in job.steps():
        if step == 2:
            job.loop.stop()
    assert job.loop.step == 3
    assert train.checkpoint.steps(tmp_path) == [3]
    assert Job(tmp_path).run().seen == []


def test_a_body_that_breaks_or_raises_is_not_committed(tmp_path: Path) -> None:
    """Leaving the body early commits nothing of that step, and SIGTERM works as before the loop."""
    before = signal.getsignal(signal.SIGTERM)
    job = Job(tmp_path, every_steps=2)
    steps = job.steps()
    for step in steps:
        if step == 3:
            break
    steps.close()  # type: ignore[attr-defined]
    assert job.loop.step == 3
    assert train.checkpoint.steps(tmp_path) == [2]
    assert signal.getsignal(signal.SIGTERM) is before


def test_keep_and_every_steps(tmp_path: Path) -> None:
    """A checkpoint every so many steps and at the end; the newest stay."""
    Job(tmp_path, every_steps=3, keep=3).run()
    assert train.checkpoint.steps(tmp_path) == [15, 18, 20]


def test_damaged_newest_falls_back_and_ends_the_same(tmp_path: Path) -> None:
    """A run whose newest checkpoint is damaged goes on from the one before, to the same weights."""
    whole = Job(tmp_path / "whole").run()
    Job(tmp_path / "run", every_steps=5, max_steps=10).run()
    damaged = tmp_path / "run" / "step-000000000010" / "shared-00000-of-00001.safetensors"
    os.truncate(damaged, 100)
    job = Job(tmp_path / "run", every_steps=5)
    assert job.loop.step == 5
    assert job.run().weights() == whole.weights()
    assert train.checkpoint.steps(tmp_path / "run") == [15, 20]


def test_data_without_state_is_skipped_with_a_warning(tmp_path: Path) -> None:
    """A plain iterable is read again up to the step, and the user is told on what that rests."""
    Job(tmp_path, data=list(range(6)), max_steps=4).run()
    job = Job(tmp_path, data=list(range(6)))
    with pytest.warns(UserWarning, match="first 4 batches"):
        job.run()
    assert job.seen == [4, 5]


def test_other_parts_are_refused(tmp_path: Path) -> None:
    """A checkpoint without a scheduler is not loaded into a loop that has one."""
    Job(tmp_path, max_steps=1).run()
    scheduler = torch.optim.lr_scheduler.ConstantLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1))
    with pytest.raises(SpecError, match="scheduler"):
        Job(tmp_path, scheduler=scheduler)


def test_extra_state_is_kept(tmp_path: Path) -> None:
    """`extra` is saved and loaded with the rest."""
    extra, later = nn.Linear(1, 1), nn.Linear(1, 1)
    Job(tmp_path, extra=extra, max_steps=1).run()
    Job(tmp_path, extra=later)
    assert torch.equal(later.weight, extra.weight)


def test_several_workers_without_a_group_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WORLD_SIZE above 1 without a process group is an error that says what to call."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match=r"train\.distributed\(\)"):
        Job(tmp_path)


def test_state_of_one_worker_is_not_given_to_another_number(tmp_path: Path) -> None:
    """Data whose state belongs to one worker cannot resume with another number of them."""

    class PerWorker(list[int]):
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pytest.fail("loaded")

    job = Job(tmp_path, data=PerWorker([1]), max_steps=1).run()
    loaded = train.checkpoint.load(tmp_path / "step-000000000001")
    job.loop._peers.world = 2
    with pytest.raises(SpecError, match="made by 1 workers and this run has 2"):
        job.loop._resume_data(loaded)


def test_journal_and_default_folder_under_tradewind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run's worker the journal tells the story and checkpoints lie in the run's folder."""
    monkeypatch.setenv(names.ENV_RUN_DIR, str(tmp_path))
    monkeypatch.setenv(names.ENV_JOURNAL, str(tmp_path / "rank0.jsonl"))
    job = Job(None, max_steps=2, every_steps=1)  # type: ignore[arg-type]
    for step in job.steps():
        job.loop.log(loss=torch.tensor([2.0 + step], requires_grad=True), lr=0.5)
    entries = [json.loads(line) for line in (tmp_path / "rank0.jsonl").read_text().splitlines()]
    story = [(e["kind"], e.get("step"), e.get("name"), e.get("value")) for e in entries]
    body = [("step", None, None, None), ("checkpoint",), ("ledger",)]
    assert [kind for kind, *_ in story] == [
        "start",
        *(["metric", "metric"] + [part[0] for part in body]) * 2,
        "end",
        "ledger",
    ]
    assert story[1:3] == [("metric", 1, "loss", 2.0), ("metric", 1, "lr", 0.5)]
    assert story[6] == ("metric", 2, "loss", 3.0)
    saved = next(e for e in entries if e["kind"] == "checkpoint")
    assert saved["path"] == str(tmp_path / "checkpoints" / "step-000000000001")
    assert saved["bytes"] > 1000
    assert 0 < saved["stall_s"] < 60
    assert all(set(e["buckets"]) == set(train.ledger.BUCKETS) for e in entries if e["kind"] == "ledger")
