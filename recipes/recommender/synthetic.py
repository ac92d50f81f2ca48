"""A synthetic event log with the structure sequential recommenders live on; millions of events in seconds.

    python recipes/recommender/synthetic.py --events 5000000 --out events.parquet

What is planted, each checked by a test: item popularity follows a Zipf law; history lengths have
a Pareto tail; every user has a few latent tastes (item clusters); an event continues the last one
(the item's fixed successor) with a known probability, else stays in its cluster or turns to
another of the user's tastes; items are born over time and fade, so popularity drifts; events come
in sessions. Figures measured on it are always labelled synthetic.
"""

import argparse
import dataclasses
import itertools
import pathlib
import sys
import time

if not __package__:  # run as a script: make the repository importable
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from recipes.recommender.data import EventLog, from_arrays

START_S = 1_600_000_000
DAY_S = 86_400


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """The law the events are drawn from."""

    num_items: int = 5_000
    num_clusters: int = 50
    tastes: int = 4
    item_exponent: float = 1.0
    length_shape: float = 1.3
    shortest: int = 5
    longest: int = 2_000
    successor: float = 0.25
    """Probability that an event is the last item's successor."""
    stay: float = 0.5
    """Probability, otherwise, that it stays in the last item's cluster."""
    session: float = 0.85
    """Probability that the next event comes within minutes rather than days."""
    periods: int = 24
    fade_periods: float = 12.0
    days: int = 360


@dataclasses.dataclass(frozen=True, kw_only=True)
class Events:
    """Parallel columns, one row an event, users' events in time order."""

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    rating: np.ndarray
    cluster: np.ndarray
    """Of each item."""
    successor: np.ndarray
    """Of each item."""

    def table(self) -> pa.Table:
        return pa.table({k: getattr(self, k) for k in ("user", "item", "timestamp", "rating")})

    def log(self) -> EventLog:
        return from_arrays(self.user, self.item, self.timestamp, self.rating)


def history_lengths(rng: np.random.Generator, num_events: int, world: World) -> np.ndarray:
    """Pareto lengths that sum to `num_events`, longest first."""
    draws = world.shortest * (1.0 + rng.pareto(world.length_shape, num_events // world.shortest + 1))
    lengths = np.minimum(draws, world.longest).astype(np.int64)
    count = max(1, int(np.searchsorted(np.cumsum(lengths), num_events, side="right")))
    lengths = lengths[:count]
    lengths[-1] += num_events - lengths.sum()
    return -np.sort(-lengths)


class Catalogue:
    """Draws an item for many (period, cluster) pairs at once from one table of cumulative weights."""

    def __init__(self, rng: np.random.Generator, world: World) -> None:
        self.world = world
        rank = rng.permutation(world.num_items) + 1
        self.cluster = rng.integers(0, world.num_clusters, world.num_items)
        self.cluster[: world.num_clusters] = np.arange(world.num_clusters)  # none is empty
        birth = rng.uniform(-world.fade_periods, world.periods * 0.8, world.num_items)
        self.by_cluster = np.argsort(self.cluster, kind="stable")
        self.base = (rank**-world.item_exponent)[self.by_cluster]
        self.birth = birth[self.by_cluster]
        starts = np.searchsorted(self.cluster[self.by_cluster], np.arange(world.num_clusters + 1))
        self.table = np.concatenate([self._cumulative(p, starts) for p in range(world.periods)])
        self.successor = self._successors(rng, starts)

    def _cumulative(self, period: int, starts: np.ndarray) -> np.ndarray:
        """For each item, in cluster order, (period, cluster) number + cumulative probability in (0, 1]."""
        age = period - self.birth
        weight = self.base * np.where(age < 0, 1e-4, np.exp(-np.maximum(age, 0) / self.world.fade_periods))
        total = np.cumsum(weight)
        before = np.concatenate([[0.0], total])[starts]
        group = self.cluster[self.by_cluster]
        inside = (total - before[group]) / (before[group + 1] - before[group])
        return period * self.world.num_clusters + group + np.clip(inside, 0.0, 1.0)

    def _successors(self, rng: np.random.Generator, starts: np.ndarray) -> np.ndarray:
        """A ring through each cluster's items, in random order."""
        successor = np.empty(self.world.num_items, np.int64)
        for start, stop in itertools.pairwise(starts):
            ring = rng.permutation(self.by_cluster[start:stop])
            successor[ring] = np.roll(ring, -1)
        return successor

    def draw(self, rng: np.random.Generator, period: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        key = period * self.world.num_clusters + cluster + 1.0 - rng.random(len(period))
        place = np.searchsorted(self.table, key, side="left")
        return self.by_cluster[np.minimum(place, len(self.table) - 1) % self.world.num_items]


def _times(rng: np.random.Generator, lengths: np.ndarray, world: World) -> np.ndarray:
    """Event times, flat by user: a start anywhere, gaps of minutes inside a session and days between."""
    total, span = int(lengths.sum()), world.days * DAY_S
    quick = rng.random(total) < world.session
    gaps = rng.exponential(np.where(quick, 60.0, 3.0 * DAY_S))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    gaps[offsets[:-1]] = rng.uniform(0, span * 0.9, len(lengths))
    running = np.cumsum(gaps)
    within = running - np.repeat(running[offsets[:-1]] - gaps[offsets[:-1]], lengths)
    return START_S + np.minimum(within, span - 1).astype(np.int64)


def generate(*, num_events: int, seed: int = 0, world: World | None = None) -> Events:
    """Draw `num_events` events; the same seed and world give the same log."""
    world = world or World()
    rng = np.random.default_rng(seed)
    catalogue = Catalogue(rng, world)
    lengths = history_lengths(rng, num_events, world)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    times = _times(rng, lengths, world)
    period = (times - START_S) * world.periods // (world.days * DAY_S)
    tastes = rng.integers(0, world.num_clusters, (len(lengths), world.tastes))
    items = np.empty(num_events, np.int64)
    last = np.zeros(len(lengths), np.int64)
    for step in range(int(lengths[0])):
        alive = int(
            np.searchsorted(-lengths, -step, side="left")
        )  # users with a longer history, longest first
        rows = offsets[:alive] + step
        chosen = tastes[np.arange(alive), (rng.random(alive) ** 2 * world.tastes).astype(np.int64)]
        if step:
            chosen = np.where(rng.random(alive) < world.stay, catalogue.cluster[last[:alive]], chosen)
        drawn = catalogue.draw(rng, period[rows], chosen)
        if step:
            follows = rng.random(alive) < world.successor
            drawn = np.where(follows, catalogue.successor[last[:alive]], drawn)
        items[rows] = last[:alive] = drawn
    user = np.repeat(np.arange(len(lengths)), lengths)
    liked = (tastes[user] == catalogue.cluster[items][:, None]).any(1)
    rating = np.clip(np.rint(rng.normal(2.5 + 1.5 * liked, 1.0)), 1, 5).astype(np.float32)
    return Events(
        user=user, item=items, timestamp=times, rating=rating,
        cluster=catalogue.cluster, successor=catalogue.successor,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=World.num_items)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a .parquet file")
    flags = parser.parse_args()
    started = time.perf_counter()
    events = generate(num_events=flags.events, seed=flags.seed, world=World(num_items=flags.items))
    drawn_s = time.perf_counter() - started
    pyarrow.parquet.write_table(events.table(), flags.out)
    print(
        f"synthetic: {flags.events} events of {events.user[-1] + 1} users drawn in {drawn_s:.1f} s -> {flags.out}"
    )


if __name__ == "__main__":
    main()
