"""The judge of the chaos suite: it sees every kind of harm, and none where there is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.chaos import harm
from tests.chaos.training import BATCH, EPOCHS, SAMPLES, STEPS, STEPS_PER_EPOCH

Records = dict[int, list[dict[str, Any]]]


def record(step: int, world: int, rank: int, t_s: float) -> dict[str, Any]:
    """What a rank notes about a step of a run that reads its samples in order."""
    first = (step - 1) % STEPS_PER_EPOCH * BATCH
    mine = range(first + rank * BATCH // world, first + (rank + 1) * BATCH // world)
    return {"t": t_s, "world": world, "step": step, "samples": list(mine)}


def run(world: int, steps: range, t_s: float = 0.0) -> Records:
    return {rank: [record(step, world, rank, t_s + step) for step in steps] for rank in range(world)}


def then(first: Records, second: Records) -> Records:
    return {rank: first.get(rank, []) + second.get(rank, []) for rank in first | second}


EVERY_STEP = range(1, STEPS + 1)


@pytest.mark.parametrize(
    "records",
    [
        run(2, EVERY_STEP),
        then(run(3, range(1, 9)), run(3, range(6, STEPS + 1), 100.0)),
        then(run(4, range(1, 9)), run(2, range(6, STEPS + 1), 100.0)),
        then(run(2, range(1, 9)), run(3, range(9, STEPS + 1), 100.0)),
    ],
    ids=["undisturbed", "steps done again", "fewer workers, steps done again", "more workers"],
)
def test_no_harm_is_seen_where_none_was_done(records: Records) -> None:
    """Restarts and resizes that deliver each sample once to the state that lasts are free of harm."""
    assert harm.lost_and_repeated(harm.delivered(records)) == (0, 0)


def test_a_lost_and_a_repeated_sample_are_seen() -> None:
    """A sample left out is lost; one delivered by two ranks, or in two steps of an epoch, is repeated."""
    records = run(2, EVERY_STEP)
    records[1][3]["samples"] = records[1][3]["samples"][1:]
    assert harm.lost_and_repeated(harm.delivered(records)) == (1, 0)
    records[0][3]["samples"] = [*records[0][3]["samples"], *records[0][2]["samples"]]
    assert harm.lost_and_repeated(harm.delivered(records)) == (1, BATCH // 2)


def test_a_rank_that_missed_a_step_lost_its_samples() -> None:
    """Where the last group of a step lacks a rank, what that rank had delivered before does not count."""
    records = then(run(2, range(1, 9)), run(3, range(8, STEPS + 1), 100.0))
    del records[2][0]
    assert harm.lost_and_repeated(harm.delivered(records))[0] == len(record(8, 3, 2, 0)["samples"])


def test_counts_of_the_state_itself() -> None:
    """A tally of ones is whole; zeros are lost and what is above one is repeated."""
    counts = np.ones((EPOCHS, SAMPLES), np.int64)
    assert harm.lost_and_repeated(counts) == (0, 0)
    counts[0, :3], counts[1, 0] = 0, 4
    assert harm.lost_and_repeated(counts) == (3, 3)


def test_steps_done_again_are_counted_at_each_return(tmp_path: Path) -> None:
    """Each return counts the committed steps that are done again, over attempts and legs."""
    for leg, attempts in enumerate([[range(1, 8), range(6, 9)], [range(9, 12)], [range(9, 13)]]):
        for attempt, steps in enumerate(attempts):
            journal = tmp_path / f"leg{leg}" / "journal" / f"attempt{attempt}" / "rank0.jsonl"
            journal.parent.mkdir(parents=True)
            lines = [{"t": 10 * attempt + step, "kind": "step", "step": step} for step in steps]
            journal.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    steps = harm.journalled(sorted(tmp_path.iterdir()))
    assert harm.recomputed(steps.values()) == [2, 3]


def test_torn_records_are_not_read(tmp_path: Path) -> None:
    """A line that a kill tore is no record."""
    (tmp_path / "rank1.jsonl").write_text(json.dumps(record(1, 2, 1, 0.0)) + "\n" + '{"t": 1, "wor')
    assert harm.read_records(tmp_path) == {1: [record(1, 2, 1, 0.0)]}
