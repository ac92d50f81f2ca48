"""What a disturbed run lost, repeated and did again, from what its script left behind."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.chaos.training import EPOCHS, SAMPLES, STEPS, STEPS_PER_EPOCH

Record = Mapping[str, Any]
Counts = NDArray[np.int64]


def read_records(folder: Path) -> dict[int, list[Record]]:
    """Rank -> what it trained on, in order; a line torn by a kill is of a step that was not committed."""
    found: dict[int, list[Record]] = {}
    for path in sorted(folder.glob("rank*.jsonl")):
        lines = path.read_bytes().split(b"\n")[:-1]
        found[int(path.stem.removeprefix("rank"))] = [json.loads(line) for line in lines]
    return found


def last_execution(records: Mapping[int, Sequence[Record]], step: int) -> list[Record]:
    """The records of the group that trained this step last; what came before it was undone.

    Its size is that of the latest record, and each of its ranks counts with its own latest of that size.
    """
    mine = {rank: [r for r in records[rank] if r["step"] == step] for rank in records}
    latest = max((r for found in mine.values() for r in found), key=lambda r: r["t"], default=None)
    if latest is None:
        return []
    of_group = [[r for r in mine[rank] if r["world"] == latest["world"]] for rank in sorted(mine)]
    return [found[-1] for found in of_group[: latest["world"]] if found]


def delivered(records: Mapping[int, Sequence[Record]]) -> Counts:
    """[epoch, sample]: how often a sample was handed to the last execution of a step of that epoch."""
    counts = np.zeros((EPOCHS, SAMPLES), np.int64)
    for step in range(1, STEPS + 1):
        for record in last_execution(records, step):
            np.add.at(counts[(step - 1) // STEPS_PER_EPOCH], record["samples"], 1)
    return counts


def committed(final: Path) -> Counts:
    """[epoch, sample]: how often the final state itself says that it was trained on a sample."""
    counts: Counts = load_file(final)["tally"]
    return counts


def lost_and_repeated(counts: Counts) -> tuple[int, int]:
    """How many (epoch, sample) pairs are missing, and how many deliveries were one too many."""
    return int((counts == 0).sum()), int(np.clip(counts - 1, 0, None).sum())


def journalled(run_dirs: Iterable[Path]) -> dict[int, list[int]]:
    """Rank -> the steps it committed, in order, over the legs of a run."""
    found: dict[int, list[int]] = {}
    for run_dir in run_dirs:
        of_leg: dict[int, list[tuple[float, int]]] = {}
        for path in run_dir.glob("journal/*/rank*.jsonl"):
            entries = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
            steps = [(e["t"], e["step"]) for e in entries if e["kind"] == "step"]
            of_leg.setdefault(int(path.stem.removeprefix("rank")), []).extend(steps)
        for rank, timed in of_leg.items():
            found.setdefault(rank, []).extend(step for _, step in sorted(timed))
    return found


def recomputed(committed_steps: Iterable[Sequence[int]]) -> list[int]:
    """How many committed steps were done again at each return to an earlier one, of any rank."""
    returns = []
    for steps in committed_steps:
        reached = 0
        for step in steps:
            if step <= reached:
                returns.append(reached - step + 1)
            reached = step
    return returns
