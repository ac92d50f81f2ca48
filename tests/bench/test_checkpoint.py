"""The checkpoint benchmark: what it promises to print, what it compares, and that a broken rank ends it."""

import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from bench import checkpoint
from bench.peers.checkpoints import drivers
from bench.peers.checkpoints.deltas import DISTRIBUTIONS, delta_ratio

PROMISED = {
    "stall_ratio_torch_checkpointing",
    "stall_ratio_dcp_thread",
    "stall_ratio_dcp_process",
    "stall_ratio_memcpy",
    "save_speedup_dcp",
    "load_speedup_dcp",
    "step_p99_inflation",
    "memory_restore_ratio_disk",
    "delta_bytes_ratio",
}


def rounds() -> checkpoint.Rounds:
    """Measurements as the ranks print them."""
    background = {"stall": [1.0], "memcpy": [2.0], "total": [3.0], "p99_quiet": [4.0], "p99_saving": [5.0]}
    peer = background | {"stall": [8.0], "p99_saving": [8.0]}
    foreground = {
        "save_ours": [2.0],
        "save_dcp": [3.0],
        "load_ours": [4.0],
        "load_dcp": [10.0],
        "load_cold_ours": [5.0],
        "load_cold_dcp": [5.0],
        "load_memory": [0.25],
        "load_memory_verified": [0.4],
        "load_memory_into": [0.5],
    }
    found: checkpoint.Rounds = {("foreground", "sharded"): [foreground]}
    for layout in checkpoint.LAYOUTS:
        for name in checkpoint.BACKGROUND:
            found[name, layout] = [background if name == "tradewind" else peer]
    return found


def test_every_promised_figure_points_the_right_way() -> None:
    """Stalls, restores and inflation are ours to theirs, speed-ups theirs to ours."""
    found = rounds()
    size = checkpoint.Size(bytes=0, rows=500)
    figures = checkpoint.stalls(found) | checkpoint.disk(found["foreground", "sharded"])
    figures |= checkpoint.inflation(found)
    figures |= checkpoint.deltas(size, 1)
    assert set(figures) >= PROMISED
    assert figures["stall_ratio_dcp_thread"].value == 1 / 8
    assert figures["stall_ratio_memcpy"].value == 1 / 2
    assert figures["save_speedup_dcp"].value == 1.5
    assert figures["load_speedup_dcp"].value == 2.5
    assert figures["memory_restore_ratio_disk"].value == 0.05
    assert figures["load_cold_speedup_dcp"].value == 1
    assert figures["step_p99_inflation"].value == 1.25
    assert figures["step_p99_inflation_dcp_process"].value == 2


def test_the_state_has_the_bytes_that_were_asked_for() -> None:
    """Alike, each rank has all of it and the same; sharded, each has another half."""
    for layout, part in (("alike", 64 << 20), ("sharded", 32 << 20)):
        first, second = (drivers.states(layout, 64 << 20, rank, 2) for rank in (0, 1))
        state, other = (max(pair, key=len) for pair in (first, second))
        assert sum(tensor.nbytes for tensor in drivers.tensors_of(state)) == pytest.approx(part, rel=0.05)
        assert torch.equal(state["large0"], other["large0"]) == (layout == "alike")
        assert (state is first[0]) == (layout == "alike")


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_hundredth_is_touched(name: str) -> None:
    """Both distributions touch a hundredth of the rows, each row named once, and a delta is in proportion."""
    rows = DISTRIBUTIONS[name](20_000, torch.Generator().manual_seed(0))
    assert len(rows) == len(torch.unique(rows))
    assert 200 <= len(rows) < 250
    assert 0.01 < delta_ratio(DISTRIBUTIONS[name], 20_000, 0, hashed=False) < 0.02
    assert 0.01 < delta_ratio(DISTRIBUTIONS[name], 20_000, 0, hashed=True) < 0.1


def test_a_failed_rank_ends_the_others() -> None:
    """When one rank fails the others are ended and it is over at once, not at the time limit."""
    codes = ["import sys; sys.exit(3)", "import time; time.sleep(300)"]
    ranks = [subprocess.Popen([sys.executable, "-c", code], start_new_session=True) for code in codes]
    started = time.monotonic()
    checkpoint._wait(ranks)
    assert time.monotonic() - started < 60
    assert [process.returncode for process in ranks] == [3, -9]


def test_an_error_behind_the_steps_is_raised() -> None:
    """A save that fails in the background fails the measurement, rather than look fast."""
    written: Future[None] = Future()
    assert not drivers.finished(written)
    written.set_exception(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        drivers.finished(written)


@pytest.mark.slow
def test_two_ranks_measure(tmp_path: Path) -> None:
    """Two real ranks save, load, check what they loaded and print every measurement as often as asked."""
    size = checkpoint.Size(bytes=8 << 20, rows=0)
    found = checkpoint.run("foreground", "sharded", size, tmp_path)
    assert set(found) == set(rounds()["foreground", "sharded"][0])
    assert {len(values) for values in found.values()} == {2}
    assert all(value > 0 for values in found.values() for value in values)
    assert list(tmp_path.iterdir()) == []
