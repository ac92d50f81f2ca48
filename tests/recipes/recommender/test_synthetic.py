import numpy as np
import pytest

from recipes.recommender import data
from recipes.recommender.synthetic import DAY_S, START_S, World, generate

WORLD = World(num_items=2_000, num_clusters=20)


@pytest.fixture(scope="module")
def events():
    return generate(num_events=200_000, seed=1, world=WORLD)


def test_count_and_order(events):
    """There are exactly as many events as asked for, and each user's are in time order."""
    assert len(events.item) == len(events.timestamp) == 200_000
    later = np.diff(events.timestamp)[np.diff(events.user) == 0]
    assert (later >= 0).all()


def test_item_popularity_is_zipf():
    """Without drift and successors, log popularity falls with log rank at the planted exponent."""
    still = World(num_items=1_000, num_clusters=1, successor=0.0, periods=1, fade_periods=1e9)
    counts = -np.sort(-np.bincount(generate(num_events=300_000, world=still).item))
    rank = np.arange(1, 101)
    slope = np.polyfit(np.log(rank), np.log(counts[:100]), 1)[0]
    assert slope == pytest.approx(-still.item_exponent, abs=0.05)


def test_history_lengths_have_a_pareto_tail(events):
    """The Hill estimate of the tail index of history lengths is the planted shape."""
    lengths = np.bincount(events.user)
    assert lengths.min() >= WORLD.shortest
    tail = lengths[(lengths >= 20) & (lengths < WORLD.longest)] + 0.5
    hill = len(tail) / (
        np.log(tail / 20).sum() + (lengths >= WORLD.longest).sum() * np.log(WORLD.longest / 20)
    )
    assert hill == pytest.approx(WORLD.length_shape, rel=0.1)


def test_events_follow_their_predecessor(events):
    """The successor of the last item comes next as often as planted, plus what chance adds."""
    same = np.diff(events.user) == 0
    follows = (events.item[1:] == events.successor[events.item[:-1]])[same]
    assert WORLD.successor < follows.mean() < WORLD.successor + 0.03


def test_users_have_tastes(events):
    """A user's events fall into far fewer clusters than everyone's."""
    cluster = events.cluster[events.item]
    everyone = np.bincount(cluster, minlength=WORLD.num_clusters) / len(cluster)
    own = np.mean(
        [(np.bincount(cluster[events.user == u]) / (events.user == u).sum()).max() for u in range(50)]
    )
    assert own > 3 * everyone.max()


def test_popularity_drifts(events):
    """The most popular items of the first tenth of the time are mostly not those of the last."""
    when = (events.timestamp - START_S) / (WORLD.days * DAY_S)
    top = [
        set(np.argsort(-np.bincount(events.item[m], minlength=2_000))[:50]) for m in (when < 0.1, when > 0.9)
    ]
    halves = np.random.default_rng(0).random(len(when)) < 0.5
    control = [set(np.argsort(-np.bincount(events.item[m], minlength=2_000))[:50]) for m in (halves, ~halves)]
    assert len(top[0] & top[1]) < 25 < 40 < len(control[0] & control[1])


def test_the_seed_decides():
    """The same seed gives the same log and another seed another."""
    one, same, other = (generate(num_events=2_000, seed=s, world=WORLD).log().fingerprint for s in (0, 0, 1))
    assert one == same != other


def test_it_loads_by_name():
    """`--data synthetic:N` is a log of N events with ratings and positions from 1."""
    log = data.load("synthetic:3000")
    assert len(log.items) == 3000
    assert log.items.min() == 1
    assert set(np.unique(log.ratings)) <= {1, 2, 3, 4, 5}
