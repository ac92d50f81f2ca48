"""Kill and resume, with real processes."""

import json
from pathlib import Path

import pytest
import workers


@pytest.mark.parametrize("world", [1, 2])
def test_killed_and_resumed_equals_undisturbed(world: int, tmp_path: Path) -> None:
    """A run killed by SIGKILL in mid-epoch and started again ends with bitwise the same weights."""
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert [code for code, _ in workers.run(calm, world)] == [0] * world
    first = workers.run(killed, world, KILL_AT="13", KILL_RANK=str(world - 1))
    assert first[world - 1][0] == -9
    assert all(code != 0 for code, _ in first)
    again = workers.run(killed, world, KILL_AT="13", KILL_RANK=str(world - 1))
    assert [code for code, _ in again] == [0] * world, again
    assert "batch 10 " in again[0][1]
    assert "batch 9 " not in again[0][1]
    assert (killed / "final.safetensors").read_bytes() == (calm / "final.safetensors").read_bytes()


@pytest.mark.parametrize("world", [1, 2])
def test_sigterm_commits_and_asks_to_be_requeued(world: int, tmp_path: Path) -> None:
    """SIGTERM on one worker makes all exit 75 after the same step, and the next start ends the run."""
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    workers.run(calm, world)
    first = workers.run(stopped, world, KILL_AT="13", KILL_RANK=str(world - 1), SIGNAL="15")
    assert [code for code, _ in first] == [75] * world, first
    again = workers.run(stopped, world)
    assert [code for code, _ in again] == [0] * world
    stopped_at = 13 if world == 1 else 14
    assert f"batch {stopped_at} " in again[0][1]
    assert f"batch {stopped_at - 1} " not in again[0][1]
    assert (stopped / "final.safetensors").read_bytes() == (calm / "final.safetensors").read_bytes()


def test_journal_tells_the_story(tmp_path: Path) -> None:
    """The journal has every step once per attempt, the resume, the end, and a ledger that sums to wall."""
    workers.run(tmp_path / "run", 2, KILL_AT="13", KILL_RANK="1")
    workers.run(tmp_path / "run", 2)
    entries = [json.loads(line) for line in (tmp_path / "run" / "rank0.jsonl").read_text().splitlines()]
    second = entries[[e["kind"] for e in entries].index("resume") :]
    assert second[0]["step"] == 10
    assert [e["step"] for e in second if e["kind"] == "step"] == list(range(11, 25))
    assert [e["step"] for e in second if e["kind"] == "metric"] == list(range(11, 25))
    assert [e["step"] for e in second if e["kind"] == "checkpoint"] == [15, 20, 24]
    ledger = [e for e in second if e["kind"] == "ledger"][-1]
    assert sum(ledger["buckets"].values()) == pytest.approx(ledger["wall_s"], abs=1e-9)
    assert all(ledger["buckets"][name] > 0 for name in ("startup", "restore", "compute", "communication"))
