"""The exact scan gives what scoring and sorting everything gives, whichever kernels it takes."""

import numpy as np
import pytest
import torch

from tradewind.retrieve.scan import best_of, largest


@pytest.mark.parametrize(
    ("count", "k"), [(1, 1), (100, 7), (20_000, 100), (40_001, 3), (33_333, 500), (70_000, 60_000)]
)
def test_the_largest_by_blocks_are_the_largest(count: int, k: int) -> None:
    """Block maxima first, or not: values as `topk` has them, each at its index, with ties and a ragged tail."""
    scores = torch.randint(-500, 500, (3, count), generator=torch.Generator().manual_seed(0)).float()
    scores[0, -1] = scores[2, 0] = 1e6
    scores[1, ::2] = -torch.inf
    values, where = largest(scores, k)
    torch.testing.assert_close(values, scores.topk(k, dim=1).values, rtol=0, atol=0)
    torch.testing.assert_close(values, scores.gather(1, where), rtol=0, atol=0)
    assert all(len({*row}) == k for row in where.tolist())


@pytest.mark.parametrize("num_queries", [0, 1, 3, 9])
@pytest.mark.parametrize("some", [False, True])
def test_few_queries_and_many_give_the_same(num_queries: int, some: bool) -> None:
    """FAISS's kernels for a few queries and a matrix product for many, over all rows or some, without the banned."""
    generator = np.random.default_rng(0)
    table = generator.integers(-9, 10, size=(500, 8)).astype("f4")
    queries = generator.integers(-9, 10, size=(num_queries, 8)).astype("f4")
    rows = generator.permutation(500)[:200] if some else np.arange(500)
    banned = generator.random(len(rows)) < 0.3
    best = best_of(torch.from_numpy(table), queries, 20, rows if some else None, banned)
    scores = queries @ table[rows].T
    scores[:, banned] = -np.inf
    np.testing.assert_array_equal(best.scores, -np.sort(-scores, axis=1)[:, :20])
    np.testing.assert_array_equal(best.scores, np.take_along_axis(scores, best.rows, axis=1))
