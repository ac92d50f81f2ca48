"""Recommendation quality on MovieLens-100k against RecBole's SASRec: full ranking, leave-one-out by time."""

import argparse
import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np

from bench.harness import Figure, Options, main, say
from bench.peers import recbole

NAME = "recommender"
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Trained:
    """One model over several seeds: metrics are [seeds, users]; `masked10` is NDCG@10 among items not seen."""

    ndcg10: np.ndarray
    masked10: np.ndarray
    hr10: np.ndarray
    wall_s: list[float]


def measure(options: Options) -> Mapping[str, Figure]:
    """Train HSTU and SASRec with a few seeds each and compare both with RecBole's kept SASRec, user by user."""
    from recipes.recommender import data
    from recipes.recommender.evaluate import Evaluation, evaluate_popularity
    from recipes.recommender.models.popularity import training_counts
    from recipes.recommender.split import leave_one_out

    if options.extra.peer:
        recbole.rerun()
    peer, split = recbole.load(), leave_one_out(data.load("ml-100k"))
    assert peer.users == split.log.user_ids, "RecBole's users are not ours"
    theirs, theirs_masked = (
        Evaluation(split.test.users, ranks).per_user()["ndcg@10"][None]
        for ranks in (peer.ranks, peer.ranks_masked)
    )
    popularity = evaluate_popularity(training_counts(split), split.test).per_user()["ndcg@10"][None]
    seeds = range(1 if options.quick else 3)
    hstu, sasrec = (
        train(split, name, seeds, epochs=2 if options.quick else None) for name in ("hstu", "sasrec")
    )
    draw = Bootstrap(split.test.users.size)
    return {
        "ndcg10_hstu": draw.mean(hstu.ndcg10),
        "ndcg10_sasrec": draw.mean(sasrec.ndcg10),
        "ndcg10_sasrec_recbole": draw.mean(theirs),
        "ndcg10_popularity": draw.mean(popularity),
        "ratio_ndcg10": draw.ratio(hstu.ndcg10, theirs),
        "ratio_sasrec": draw.ratio(sasrec.ndcg10, theirs),
        "ratio_ndcg10_masked": draw.ratio(hstu.masked10, theirs_masked),
        "ratio_sasrec_masked": draw.ratio(sasrec.masked10, theirs_masked),
        "time_ratio_recbole": Figure.of([wall_s / peer.train_s for wall_s in sasrec.wall_s], "ratio"),
        "hr10_hstu": draw.mean(hstu.hr10),
    }


def train(split, name: str, seeds: range, epochs: int | None) -> Trained:  # type: ignore[no-untyped-def]
    """Train one model with each seed from nothing and evaluate it on the test items."""
    from recipes.recommender.evaluate import evaluate
    from recipes.recommender.recipe import recipe
    from recipes.recommender.train import fit
    from tradewind import train as tw

    chosen = recipe(name) if epochs is None else recipe(name).change(epochs=epochs)
    rows, masked_rows, wall_s = [], [], []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder, tw.distributed() as context:
            fitted = fit(split, chosen, seed=seed, folder=pathlib.Path(folder), context=context)
        found = evaluate(fitted.model, split, split.test)
        masked = evaluate(fitted.model, split, split.test, mask_seen=True).per_user()["ndcg@10"]
        say(
            f"{name:<7} seed {seed}: test NDCG@10 {found.metrics()['ndcg@10']:.4f} (seen masked {masked.mean():.4f}), "
            f"validation {fitted.valid_ndcg10:.4f} at epoch {fitted.best_epoch}, {fitted.wall_s:.0f} s"
        )
        rows.append(found.per_user())
        masked_rows.append(masked)
        wall_s.append(fitted.wall_s)
    ndcg10, hr10 = (np.stack([row[name] for row in rows]) for name in ("ndcg@10", "hr@10"))
    return Trained(ndcg10, np.stack(masked_rows), hr10, wall_s)


class Bootstrap:
    """Paired intervals over users and seeds: every figure sees the same resampled users.

    Values are [seeds, users]. A resample draws users with replacement, and seeds of each model.
    """

    def __init__(self, users: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights = self.rng.multinomial(users, np.full(users, 1 / users), RESAMPLES) / users

    def mean(self, values: np.ndarray) -> Figure:
        return self._figure(values.mean(), self._resampled(values), "metric", len(values))

    def ratio(self, ours: np.ndarray, theirs: np.ndarray) -> Figure:
        spread = self._resampled(ours) / self._resampled(theirs)
        return self._figure(ours.mean() / theirs.mean(), spread, "ratio", len(ours))

    def _resampled(self, values: np.ndarray) -> np.ndarray:
        per_seed = self.weights @ values.T
        counts = self.rng.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
        return (per_seed * counts).sum(1) / len(values)

    @staticmethod
    def _figure(value: float, spread: np.ndarray, unit: str, seeds: int) -> Figure:
        low, high = np.quantile(spread, [0.025, 0.975])
        return Figure(float(value), unit, float(low), float(high), seeds)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer", action="store_true", help="train RecBole again (hours) and keep its result")


if __name__ == "__main__":
    main(NAME, measure, packages=("torch", "numpy"), add_flags=add_flags)
