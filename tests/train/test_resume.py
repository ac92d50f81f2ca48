"""Kill and resume, with real processes."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train import workers
from tradewind import names
from tradewind.train import checkpoint
from tradewind.train.preempt import fits

pytestmark = pytest.mark.slow
LATEST_STOP = 22
"""Where workers that are told in step 13 stop: they ask each other every eighth step at the least."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], bytes]:
    """The final weights of an undisturbed run of so many workers."""
    known: dict[int, bytes] = {}

    def weights(world: int) -> bytes:
        if world not in known:
            folder = tmp_path_factory.mktemp(f"calm{world}")
            assert [code for code, _ in workers.run(folder, world)] == [0] * world
            known[world] = (folder / "final.safetensors").read_bytes()
        return known[world]

    return weights


def journal(folder: Path, rank: int) -> list[dict[str, Any]]:
    """A worker's journal over all its attempts."""
    return [json.loads(line) for line in (folder / f"rank{rank}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("world", [1, 2])
def test_killed_and_resumed_equals_undisturbed(
    world: int, tmp_path: Path, calm: Callable[[int], bytes]
) -> None:
    """A run killed by SIGKILL in mid-epoch and started again ends with bitwise the same weights."""
    first = workers.run(tmp_path, world, KILL_AT="13", KILL_RANK=str(world - 1))
    assert first[world - 1][0] == -9
    assert all(code != 0 for code, _ in first)
    again = workers.run(tmp_path, world, KILL_AT="13", KILL_RANK=str(world - 1))
    assert [code for code, _ in again] == [0] * world, again
    assert (tmp_path / "final.safetensors").read_bytes() == calm(world)
    check_story(journal(tmp_path, world - 1), writes_checkpoints=world == 1)


def check_story(entries: list[dict[str, Any]], writes_checkpoints: bool) -> None:
    """Steps 1 to 12, then the resume at 10 and the rest, with a ledger that sums to wall."""
    kinds = [entry["kind"] for entry in entries]
    at = kinds.index("resume")
    first, second = entries[:at], entries[at:]
    assert [e["step"] for e in first if e["kind"] == "step"] == list(range(1, 13))
    assert second[0]["step"] == 10
    assert [e["step"] for e in second if e["kind"] == "step"] == list(range(11, 25))
    assert [e["step"] for e in second if e["kind"] == "metric"] == list(range(11, 25))
    saved = [e["step"] for e in second if e["kind"] == "checkpoint"]
    assert saved == ([15, 20, 24] if writes_checkpoints else [])
    assert kinds.count("end") == 1
    for entry in (e for e in entries if e["kind"] == "ledger"):
        assert sum(entry["buckets"].values()) == pytest.approx(entry["wall_s"], abs=1e-9)
    last = [e for e in second if e["kind"] == "ledger"][-1]["buckets"]
    spent = {"startup", "restore", "compute", "data_wait", "checkpoint_stall"}
    assert all(last[name] > 0 for name in spent)
    assert (last["communication"] > 0) is not writes_checkpoints


@pytest.mark.parametrize("world", [1, 2])
def test_sigterm_commits_and_asks_to_be_requeued(
    world: int, tmp_path: Path, calm: Callable[[int], bytes]
) -> None:
    """SIGTERM on one worker makes all exit 75 after the same step, and the next start ends the run."""
    first = workers.run(tmp_path, world, KILL_AT="13", KILL_RANK=str(world - 1), SIGNAL="15")
    assert [code for code, _ in first] == [75] * world, first
    stopped_at = max(checkpoint.steps(tmp_path / "checkpoints"))
    assert stopped_at == 13 if world == 1 else 14 <= stopped_at <= LATEST_STOP
    for rank in range(world):
        assert [e["step"] for e in journal(tmp_path, rank) if e["kind"] == "preempt"] == [stopped_at]
    again = workers.run(tmp_path, world)
    assert [code for code, _ in again] == [0] * world, again
    assert (tmp_path / "final.safetensors").read_bytes() == calm(world)


@pytest.mark.parametrize("world", [1, 2])
def test_without_time_for_the_disk_memory_has_the_step(
    world: int, tmp_path: Path, shm: Path, calm: Callable[[int], bytes]
) -> None:
    """Told that the end is nearer than a checkpoint takes, workers leave their state in memory and ask to be requeued."""
    hurried = {
        "KILL_AT": "13",
        "KILL_RANK": str(world - 1),
        "SIGNAL": "15",
        "MEASURED": "",
        names.ENV_GRACE: "0.9",
    }
    memory = {names.ENV_MEMORY: str(shm), "LOCAL_WORLD_SIZE": str(world)}
    first = workers.run(tmp_path, world, **hurried, **memory)
    assert [code for code, _ in first] == [75] * world, first
    assert 5 <= max(checkpoint.steps(tmp_path / "checkpoints")) <= 10
    [left, *others] = [e for rank in range(world) for e in journal(tmp_path, rank) if e["kind"] == "preempt"]
    assert left["tier"] == "memory"
    stopped_at = left["step"]
    assert stopped_at == 13 if world == 1 else 14 <= stopped_at <= LATEST_STOP
    assert [(e["step"], e["tier"]) for e in others] == [(stopped_at, "memory")] * (world - 1)
    again = workers.run(tmp_path, world, **memory, TRADEWIND_ATTEMPT="1")
    assert [code for code, _ in again] == [0] * world, again
    [resumed] = [e for e in journal(tmp_path, 0) if e["kind"] == "resume"]
    assert (resumed["step"], resumed["tier"]) == (stopped_at, "memory")
    assert (tmp_path / "final.safetensors").read_bytes() == calm(world)


@pytest.mark.parametrize(
    ("cost_s", "left_s", "begun"),
    [(None, 0.1, True), (2.0, 4.0, True), (2.0, 3.9, False), (0.0, 0.9, False), (100.0, math.inf, True)],
)
def test_what_fits_is_measured(cost_s: float | None, left_s: float, begun: bool) -> None:
    """A write may take half as long again, and a second more; what was never done is tried."""
    assert fits(cost_s, left_s) is begun


def test_a_run_may_go_on_with_another_number_of_workers(tmp_path: Path) -> None:
    """Killed with two workers and started with one, a run delivers the rest of its samples exactly once."""
    workers.run(tmp_path, 2, KILL_AT="13", KILL_RANK="0")
    [(code, output)] = workers.run(tmp_path, 1)
    assert code == 0, output
    delivered = [line.split(" ", 2) for line in output.splitlines() if line.startswith("batch")]
    assert [int(step) for _, step, _ in delivered] == list(range(10, 24))
    samples = [index for _, _, text in delivered for index in json.loads(text)]
    assert [sorted(samples[start : start + 96]) for start in (32, 128)] == [list(range(96))] * 2
    assert len(set(samples[:32])) == 32
