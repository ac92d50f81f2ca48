"""Find a recipe's values: seeded random search with successive halving, on the validation items only.

    python recipes/recommender/tune.py --models hstu sasrec --trials 12 --out search.json

Every model gets the same number of trials and of epochs. A trial is the model's recipe with a
value drawn for each name of its space. All trials train to the first rung; the best of them train
on, from their checkpoints, to the next. The test items are never ranked here.
"""

import argparse
import dataclasses
import datetime
import functools
import json
import multiprocessing
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

if not __package__:  # run as a script: make the repository importable
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

import numpy as np
import torch

from recipes.recommender import data
from recipes.recommender.recipe import RECIPES, recipe
from recipes.recommender.split import Split, leave_one_out
from recipes.recommender.train import fit
from tradewind import train

SHARED: Mapping[str, Sequence[Any]] = {
    "learning_rate": (2e-3, 3e-3, 5e-3),
    "dropout": (0.2, 0.3, 0.4, 0.5),
    "heads": (1, 2, 4),
    "layers": (1, 2, 3),
    "weight_decay": (0.0, 0.01, 0.1),
    "smoothing": (0.0, 0.05, 0.1),
    "average": (0.98, 0.99),
    "stride": (25, 50),
    "shift": (0, 25),
    "drop": (0.0, 0.1, 0.2),
}
SPACES: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "hstu": {**SHARED, "item_features": (False, True)},
    "sasrec": SHARED,
}
RUNGS = (4, 10, 20)
"""Epochs at which trials are compared."""
KEPT = (1 / 3, 1 / 2)
"""Share of the trials that trains on after each rung but the last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """Drawn values and how far they got; `valid` is the best validation NDCG@10, `epoch` where it was."""

    index: int
    values: Mapping[str, Any]
    epochs: int = 0
    epoch: int = 0
    valid: float = 0.0
    cpu_s: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """What all trials of a model share."""

    model: str
    data: str
    seed: int
    folder: pathlib.Path
    """Checkpoints, one folder a trial."""


def draw(space: Mapping[str, Sequence[Any]], count: int, seed: int) -> list[Trial]:
    """`count` trials, each value uniform over its choices; the first ones do not depend on `count`."""
    trials = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        values = {name: choices[rng.integers(len(choices))] for name, choices in space.items()}
        trials.append(Trial(index=index, values=values))
    return trials


def halve(
    trials: Sequence[Trial], rungs: Sequence[int], climb: Callable[[Sequence[Trial], int], Sequence[Trial]]
) -> list[Trial]:
    """Take all trials to the first rung and the best ones on; returns all, furthest and best first."""
    alive, out = list(trials), []
    for place, epochs in enumerate(rungs):
        alive = sorted(climb(alive, epochs), key=lambda trial: -trial.valid)
        kept = (
            max(1, round(len(alive) * KEPT[min(place, len(KEPT) - 1)]))
            if place < len(rungs) - 1
            else len(alive)
        )
        out, alive = alive[kept:] + out, alive[:kept]
    return alive + out


@functools.cache
def split_of(source: str) -> Split:
    return leave_one_out(data.load(source))


def train_to(search: Search, epochs: int, trial: Trial) -> Trial:
    """Train one trial to `epochs` epochs, from its checkpoint where it has one."""
    torch.set_num_threads(1)
    started = time.process_time()
    chosen = recipe(search.model).change(**trial.values, epochs=epochs, patience=epochs)
    folder = search.folder / str(trial.index)
    with train.distributed() as context:
        fitted = fit(split_of(search.data), chosen, seed=search.seed, folder=folder, context=context)
    found = {"epochs": epochs, "epoch": fitted.best_epoch, "valid": fitted.valid_ndcg10}
    return dataclasses.replace(trial, **found, cpu_s=trial.cpu_s + time.process_time() - started)


def search_for(model: str, flags: argparse.Namespace) -> list[Trial]:
    """Search one model's space; the first trial returned holds the chosen values."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(flags.jobs, context) as pool:
        search = Search(model=model, data=flags.data, seed=flags.seed, folder=pathlib.Path(folder))

        def climb(trials: Sequence[Trial], epochs: int) -> list[Trial]:
            reached = []
            for trial in pool.map(functools.partial(train_to, search, epochs), trials):
                print(f"{model} {line(trial)}", file=sys.stderr, flush=True)
                reached.append(trial)
            return reached

        return halve(draw(SPACES[model], flags.trials, flags.seed), flags.rungs, climb)


def line(trial: Trial) -> str:
    """One row of the table."""
    values = " ".join(f"{name}={value}" for name, value in trial.values.items())
    return f"{trial.index:>3} {trial.epochs:>3} epochs  {trial.valid:.4f} at {trial.epoch:<3} {trial.cpu_s:4.0f} s  {values}"


def main() -> None:
    """Search every model asked for, print the tables, and write them with their spaces and date."""
    flags = parse()
    result: dict[str, Any] = {
        "command": " ".join(["python", "recipes/recommender/tune.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "metric": "validation NDCG@10, full ranking, one seed, the best epoch",
        "rungs": flags.rungs,
        "models": {},
    }
    for model in flags.models:
        started = time.monotonic()
        table = search_for(model, flags)
        print(f"{model}: trial, epochs, validation NDCG@10, its epoch, CPU seconds, values")
        print("\n".join(map(line, table)), flush=True)
        result["models"][model] = {
            "space": SPACES[model],
            "wall_s": round(time.monotonic() - started),
            "chosen": table[0].values,
            "trials": [dataclasses.asdict(trial) for trial in table],
        }
        if flags.out:
            flags.out.parent.mkdir(parents=True, exist_ok=True)
            flags.out.write_text(json.dumps(result, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=[*RECIPES], default=[*RECIPES])
    parser.add_argument("--data", default="ml-100k", help="as for train.py")
    parser.add_argument("--trials", type=int, default=12, help="values drawn for each model")
    parser.add_argument("--rungs", type=int, nargs="+", default=list(RUNGS), help="epochs to compare at")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, one thread each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="write the tables here, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
