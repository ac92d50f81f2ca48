"""Small logs and batches for the recommender's tests."""

import numpy as np

from recipes.recommender.data import EventLog, from_arrays
from recipes.recommender.jagged import Jagged, collate


def small_log(num_users: int = 12, num_items: int = 30, seed: int = 0, longest: int = 40) -> EventLog:
    """Random users with 3 to `longest` events over `num_items` items, times with ties."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest, num_users)
    users = np.repeat([f"u{i:02d}" for i in range(num_users)], lengths)
    items = np.concatenate([[f"i{i:02d}" for i in range(num_items)], users])[: len(users)]
    items = np.array([f"i{i:02d}" for i in rng.integers(0, num_items, len(users))])
    times = rng.integers(0, 1000, len(users)) * 50
    return from_arrays(users, items, times, rng.integers(1, 6, len(users)).astype(float))


def random_batch(lengths: list[int], num_items: int = 30, seed: int = 0) -> Jagged:
    """One batch of random histories of these lengths."""
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    stops = np.cumsum(lengths)
    spans = np.stack([stops - lengths, stops], 1)
    times = np.sort(rng.integers(0, 10**6, total))
    return collate(
        rng.integers(1, num_items, total),
        times,
        rng.integers(1, 6, total).astype(np.float32),
        spans,
        times[stops - 1] + 77,
    )
