"""Batches deliver every sample exactly once an epoch, whatever happens in between."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.errors import SpecError
from tradewind.train import Batches
from tradewind.train.data.batches import epoch_order


def take(batches: Batches, steps: int | None = None) -> list[list[int]]:
    """The next `steps` batches (all, by default) as lists."""
    return [indices.tolist() for indices in itertools.islice(iter(batches), steps)]


@given(
    num_samples=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**63),
    legs=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9), st.integers(1, 20)), max_size=4),
)
def test_exactly_once_over_resume_and_changes_of_world(
    num_samples: int, batch_size: int, epochs: int, seed: int, legs: list[tuple[int, int, int]]
) -> None:
    """The union over workers is the global order, over stops, other worker counts and batch sizes."""
    delivered: list[int] = []
    state: dict[str, Any] | None = None
    for world, steps, size in [*legs, (2, None, batch_size)]:
        workers = [
            Batches(num_samples, size, seed=seed, epochs=epochs, rank=rank, world=world)
            for rank in range(world)
        ]
        for worker in workers:
            worker.load_state_dict(state) if state is not None else None
        parts = [take(worker, steps) for worker in workers]
        assert len({len(part) for part in parts}) == 1
        for step in zip(*parts, strict=True):
            delivered += itertools.chain.from_iterable(step)
        states = [worker.state_dict() for worker in workers]
        assert all(other == states[0] for other in states)
        state = states[0]
    expected = [epoch_order(num_samples, seed, epoch).tolist() for epoch in range(epochs)]
    assert delivered == list(itertools.chain.from_iterable(expected))


def test_order_depends_on_seed_and_epoch_only() -> None:
    """The order is a permutation, other for each epoch and seed, and pinned: it must never change."""
    orders = [epoch_order(50, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(map(tuple, orders))) == len(orders)
    assert epoch_order(10, 0, 0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]


def test_drop_last_drops_the_rest_of_each_epoch() -> None:
    """With drop_last every batch is whole, also after a resume with a larger batch size."""
    batches = Batches(10, 4, drop_last=True, epochs=2)
    assert [len(batch) for batch in take(batches)] == [4, 4, 4, 4]
    assert len(batches) == 4
    small = Batches(10, 3, drop_last=True, epochs=2)
    take(small, 1)
    large = Batches(10, 8, drop_last=True, epochs=2)
    large.load_state_dict(small.state_dict())
    assert [len(batch) for batch in take(large)] == [8]


@pytest.mark.parametrize(("num_samples", "size", "steps"), [(10, 4, 3), (8, 4, 2), (3, 4, 1)])
def test_length_is_the_number_of_batches(num_samples: int, size: int, steps: int) -> None:
    """`steps_per_epoch` and `len` count what is delivered."""
    batches = Batches(num_samples, size, epochs=3)
    assert batches.steps_per_epoch == steps
    assert len(batches) == 3 * steps == len(take(batches))
    with pytest.raises(TypeError):
        len(Batches(3, 1))


def test_epoch_counts_whole_epochs() -> None:
    """`epoch` goes up when the last batch of an epoch is handed over."""
    batches = Batches(4, 2)
    seen = [batches.epoch for _ in itertools.islice(iter(batches), 5)]
    assert seen == [0, 1, 1, 2, 2]


def test_fetch_gets_this_workers_indices() -> None:
    """With `fetch` a batch is what it returns for the indices, in the order of samples when not shuffled."""
    data = np.arange(100, 106)
    batches = Batches(6, 4, epochs=1, shuffle=False, rank=1, world=2, fetch=lambda indices: data[indices])
    assert [batch.tolist() for batch in batches] == [[102, 103], [105]]


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_samples": 7}, {"shuffle": False}])
def test_another_order_is_refused(change: dict[str, Any]) -> None:
    """A cursor into another order of samples is refused, naming what differs."""
    state = Batches(6, 2).state_dict()
    other = Batches(**({"num_samples": 6, "batch_size": 2} | change))
    with pytest.raises(SpecError, match=next(iter(change))):
        other.load_state_dict(state)


BAD = [
    ({"num_samples": 0, "batch_size": 1}, "num_samples"),
    ({"num_samples": 1, "batch_size": 0}, "batch_size"),
    ({"num_samples": 1, "batch_size": 2, "drop_last": True}, "drop_last"),
    ({"num_samples": 1, "batch_size": 1, "seed": -1}, "seed"),
    ({"num_samples": 1, "batch_size": 1, "rank": 2, "world": 2}, "rank 2"),
]


@pytest.mark.parametrize(("arguments", "named"), BAD)
def test_what_cannot_be_delivered_is_refused(arguments: dict[str, Any], named: str) -> None:
    """Arguments that make no sense are refused by name."""
    with pytest.raises(SpecError, match=named):
        Batches(**arguments)
