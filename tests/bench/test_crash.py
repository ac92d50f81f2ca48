"""The judge of the crash benchmark tells right from wrong."""

import collections
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import crash
from bench.faults.record import Op, Recorder, note, read_log, recording
from bench.peers.checkpoints.restorer import equal, is_right
from bench.peers.checkpoints.stores import Restored, Tradewind, example

EFFORT = crash.Effort(steps=2, draws=2, cuts=2, bits=60, tears=())


class Naive:
    """A store that overwrites one file in place, flushes nothing, and believes what it reads."""

    deaths = 0

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, step: int) -> None:
        (self.root / f"step-{step}").mkdir()
        numbers = [step] * 4096
        (self.root / f"step-{step}" / "state.json").write_bytes(json.dumps(numbers).encode())

    def restore(self, root: Path, world: int) -> dict[str, Any]:
        found = sorted(root.glob("step-*/state.json"))
        if not found:
            return {"step": None, "right": False, "complaints": []}
        step = int(found[-1].parent.name.removeprefix("step-"))
        right = found[-1].read_bytes() == json.dumps([step] * 4096).encode()
        return {"step": step, "right": right, "complaints": []}


class Local:
    """Our store, restored from in this process."""

    deaths = 0

    def restore(self, root: Path, world: int) -> dict[str, Any]:
        restored = Tradewind(root).restore(world)
        right = is_right(restored, world)
        return {"step": restored.step, "right": right, "complaints": restored.complaints}


def history(tmp_path: Path, save: Any) -> list[Op]:
    root = tmp_path / "root"
    root.mkdir()
    with recording(Recorder(root, tmp_path / "log")) as recorder:
        for step in (1, 2):
            save(root, step)
            note(recorder, f"saved {step}")
    return read_log(tmp_path / "log")


def judged(tmp_path: Path, restorer: Any, ops: list[Op]) -> collections.Counter[str]:
    judge = crash.Judge(restorer, tmp_path / "tried")
    root = tmp_path / "root"
    found = crash.crashes(ops, root, 1, EFFORT, judge)
    tree = crash.read_tree(root)
    return found + crash.flips(tree, *crash.newest(tree), 1, EFFORT, judge)


def test_a_careless_store_is_caught(tmp_path: Path) -> None:
    """A store without flushes and digests gets corrupt restores, lost commits and undetected flips."""
    ops = history(tmp_path, lambda root, step: Naive(root).save(step))
    counts = judged(tmp_path, Naive(tmp_path / "root"), ops)
    assert counts["corrupt_restores"] > 0
    assert counts["lost_on_journal"] > 0
    assert counts["undetected"] > 50


def test_ours_passes(tmp_path: Path) -> None:
    """Our store has none of them in the same trial, and names the file of every bit that was flipped."""
    ops = history(tmp_path, lambda root, step: Tradewind(root).save(step, *example(step, 0)))
    counts = judged(tmp_path, Local(), ops)
    assert counts["kill_states"] > 40
    assert counts["power_states"] > 300
    assert counts["flips"] == 60
    assert set(+counts) == {"kill_states", "power_states", "flips"}


def test_an_unseen_write_stops_the_benchmark(tmp_path: Path) -> None:
    """When the log does not make the folder, the states would be fiction: an error says so."""
    ops = history(tmp_path, lambda root, step: Naive(root).save(step))
    shutil.rmtree(tmp_path / "root" / "step-1")
    with pytest.raises(RuntimeError, match="some writes were not seen"):
        judged(tmp_path, Naive(tmp_path), ops)


def test_right_means_every_bit() -> None:
    """One other bit, type or missing rank makes what came back wrong."""
    shared, own = example(4, 0)
    assert is_right(Restored(4, shared, [own]), 1)
    assert not is_right(Restored(3, shared, [own]), 1)
    assert not is_right(Restored(4, shared, []), 1)
    assert not is_right(Restored(4, shared | {"step": 4.0}, [own]), 1)
    changed = own["exp_avg"].clone()
    changed.view(torch.int32)[5, 5] ^= 1
    assert not is_right(Restored(4, shared, [own | {"exp_avg": changed}]), 1)
    assert equal({"a": [torch.tensor(float("nan"))]}, {"a": [torch.tensor(float("nan"))]})
