"""RecBole 1.2.1's SASRec beside ours: train it in an environment of its own, and keep its ranks.

    python -m bench.peers.recbole            # build the environment, train (an hour or more), keep
    python -m bench.peers.recbole --keep DIR # keep what an earlier training left in DIR

What is kept in `bench/results/recbole-sasrec.json` is the held-out item's rank for each user (in
the order of their ids), among all items and among those not seen before, so that paired intervals
need neither the data nor a second training.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import venv
from typing import Any

import numpy as np

from bench.harness import RESULTS, machine
from recipes.recommender import data
from recipes.recommender.data import EventLog
from tradewind.errors import NotFoundError

SCRIPT = pathlib.Path(__file__).with_name("recbole_sasrec.py")
KEPT = RESULTS / "recbole-sasrec.json"
REQUIREMENTS = ("recbole==1.2.1", "torch==2.13.*", "numpy==1.26.4", "pandas==2.2.3")


@dataclasses.dataclass(frozen=True)
class Peer:
    """The kept training: `ranks[i]` is the held-out item's rank for user `users[i]`."""

    users: list[str]
    ranks: np.ndarray
    ranks_masked: np.ndarray
    """The same with the user's other known items out of the way."""
    facts: dict[str, Any]

    @property
    def train_s(self) -> float:
        """Its epochs at the fastest epoch it had: what it would take undisturbed, in its favour."""
        return float(len(self.facts["epoch_s"]) * min(self.facts["epoch_s"]))


def load() -> Peer:
    if not KEPT.exists():
        raise NotFoundError(f"{KEPT}: no kept result of RecBole; make one with --peer")
    kept = json.loads(KEPT.read_text())
    users, ranks, masked = (kept.pop(name) for name in ("users", "ranks", "ranks_masked"))
    return Peer(users, np.array(ranks), np.array(masked), kept)


def write_events(log: EventLog, folder: pathlib.Path) -> None:
    """The log as RecBole reads it. Timestamps become ranks in the total order: both sides hold out the same."""
    (folder / "ml100k").mkdir(parents=True, exist_ok=True)
    user = np.repeat(np.arange(log.num_users), np.diff(log.offsets))
    order = np.lexsort((np.arange(len(user)), log.timestamps))
    with open(folder / "ml100k" / "ml100k.inter", "w") as out:
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for rank, row in enumerate(order):
            out.write(f"{log.user_ids[user[row]]}\t{log.item_ids[log.items[row]]}\t{float(rank)}\n")


def train(folder: pathlib.Path) -> None:
    """Install RecBole beside, not into, our environment, and train it into `folder`."""
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    write_events(data.load("ml-100k"), folder / "data")
    # -P: this folder holds a recbole.py of ours, which would shadow theirs.
    command = [python, "-P", str(SCRIPT), "--data", str(folder / "data"), "--out", str(folder)]
    subprocess.run(command, check=True, cwd=folder, stdout=sys.stderr)


def keep(folder: pathlib.Path, log: EventLog | None = None) -> None:
    """Write the ranks and the facts of the training in `folder` into `bench/results/`."""
    result = json.loads((folder / "result.json").read_text())
    saved = np.load(folder / "scores.npz", allow_pickle=False)
    users, scores, items = saved["users"].astype(str), saved["scores"], saved["items"].astype(str)
    ranks = ranks_of(scores, items, saved["targets"])
    mask_seen(scores, users, items, saved["targets"].astype(str), log or data.load("ml-100k"))
    masked = ranks_of(scores, items, saved["targets"])
    order = np.argsort(users, kind="stable")
    facts = {
        "command": "make bench NAME=recommender ARGS=--peer",
        "peer": "RecBole 1.2.1 SASRec, its documented settings, cross-entropy, train_neg_sample_args: null",
        "machine": {k: v for k, v in machine().items() if k != "load_1m"},
        **result,
    }
    by_user = {"users": users, "ranks": ranks, "ranks_masked": masked}
    kept = {**facts, **{name: values[order].tolist() for name, values in by_user.items()}}
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(kept) + "\n")


def mask_seen(
    scores: np.ndarray, users: np.ndarray, items: np.ndarray, targets: np.ndarray, log: EventLog
) -> None:
    """Put what each user had met before the held-out event, but not its item, out of reach, in place."""
    column = {name: i for i, name in enumerate(items.tolist())}
    index = {name: i for i, name in enumerate(log.user_ids)}
    for row, (user, target) in enumerate(zip(users.tolist(), targets.tolist(), strict=True)):
        start, stop = log.offsets[index[user]], log.offsets[index[user] + 1]
        met = {log.item_ids[item] for item in log.items[start : stop - 1]} - {target}
        scores[row, [column[name] for name in met]] = -np.inf


def ranks_of(scores: np.ndarray, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rank of each target, ties counted half, RecBole's padding item (column 0) left out."""
    place = {name: i for i, name in enumerate(items.astype(str).tolist())}
    column = np.array([place[name] for name in targets.astype(str).tolist()])
    own = scores[np.arange(len(scores)), column][:, None]
    others = scores[:, 1:]
    return 1 + (others > own).sum(1) + ((others == own).sum(1) - 1) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--keep", type=pathlib.Path, help="keep the training already in this folder")
    folder = parser.parse_args().keep
    if folder is not None:
        keep(folder)
        return
    rerun()


def rerun() -> None:
    """Train from nothing and keep the result."""
    with tempfile.TemporaryDirectory() as temporary:
        train(pathlib.Path(temporary))
        keep(pathlib.Path(temporary))


if __name__ == "__main__":
    main()
