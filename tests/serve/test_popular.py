"""The popular list, and what a degraded answer has lost."""

import numpy as np
import pytest

from tradewind.serve.catalogue import Catalogue, join
from tradewind.serve.jobs import Tensor
from tradewind.serve.popular import Popular
from tradewind.serve.quality import lost, ndcg

CATALOGUE = Catalogue(["", *"abcdefgh"], {}, 8, clock=lambda: 1.0)


def test_each_user_gets_popular_items_without_those_that_are_left_out():
    """As many as the request of the batch that asks for most; empty where there are no more."""
    users = [
        CATALOGUE.user([3, 1], k=2),
        CATALOGUE.user([], k=4),
        CATALOGUE.user([3], k=1, exclude_seen=False),
    ]
    answer = Popular([3, 5, 2]).answer(join(users))
    items = np.frombuffer(answer["items"].data, np.int64).reshape(answer["items"].shape)
    scores = np.frombuffer(answer["scores"].data, np.float32).reshape(answer["scores"].shape)
    assert items.tolist() == [[5, 2, 0, 0], [3, 5, 2, 0], [3, 5, 2, 0]]
    assert scores[0].tolist() == pytest.approx([1.0, 0.5, -np.inf, -np.inf])


def test_quality_is_lost_by_misses_more_than_by_swaps():
    """0 for the same list, 1 for none of it; a shorter list is not forgiven."""
    assert ndcg([1, 2, 3], [1, 2, 3]) == pytest.approx(1.0)
    assert ndcg([1, 2, 3], [7, 8, 9]) == 0.0
    assert ndcg([], [1]) == 1.0
    swapped, missed = ndcg([1, 2, 3], [2, 1, 3]), ndcg([1, 2, 3], [1, 2, 9])
    assert 1.0 > swapped > missed > ndcg([1, 2, 3], [1]) > 0.0


def test_what_is_lost_is_read_from_answers():
    """Empty places are not items."""
    full, less = (
        {"items": Tensor("INT64", (1, 3), np.array(row, np.int64).tobytes())}
        for row in ([4, 2, 1], [4, 0, 0])
    )
    assert lost(full, full) == pytest.approx(0.0)
    assert lost(full, less) == pytest.approx(1.0 - 1.0 / (1.0 + 0.6309298**2 + 0.25))
