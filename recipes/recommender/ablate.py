"""What each part of the HSTU recipe is worth: train it without one at a time, on the validation items only.

python recipes/recommender/ablate.py --out bench/results/recommender-ablation.json
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
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

if not __package__:  # run as a script: make the repository importable
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

from recipes.recommender.recipe import recipe
from recipes.recommender.tune import Search, Trial, train_to

WITHOUT: Mapping[str, Mapping[str, Any]] = {
    "nothing left out": {},
    "seen codes": {"seen": 0},
    "calendar": {"calendar": 0},
    "gap": {"gap": False},
    "time bias": {"time_bias": False},
    "ratings": {"ratings": False},
    "ties in any order": {"shuffle_ties": False},
}


def main() -> None:
    """Train every variant with one seed, print and write the best validation NDCG@10 of each."""
    flags = parse()
    epochs = flags.epochs or recipe("hstu").epochs
    trials = [Trial(index=i, values=values) for i, values in enumerate(WITHOUT.values())]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(flags.jobs, context) as pool:
        search = Search(model="hstu", data=flags.data, seed=flags.seed, folder=pathlib.Path(folder))
        rows = []
        reached = pool.map(functools.partial(train_to, search, epochs), trials)
        for name, trial in zip(WITHOUT, reached, strict=True):
            rows.append({"without": name, **dataclasses.asdict(trial)})
            print(
                f"{name:<20} {trial.valid:.4f} at epoch {trial.epoch:<3} {trial.cpu_s:4.0f} CPU s", flush=True
            )
    if flags.out:
        facts = {
            "command": " ".join(["python", "recipes/recommender/ablate.py", *sys.argv[1:]]),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "metric": "validation NDCG@10, full ranking, one seed, the best epoch",
        }
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="ml-100k", help="as for train.py")
    parser.add_argument("--epochs", type=int, help="of each variant (default: the recipe's)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, one thread each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="write the table here, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
