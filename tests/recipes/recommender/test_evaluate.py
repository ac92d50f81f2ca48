import math

import numpy as np
import pytest
import torch

from recipes.recommender.evaluate import Evaluation, evaluate, evaluate_popularity, rank_of
from recipes.recommender.models.base import Settings
from recipes.recommender.models.hstu import HSTU
from recipes.recommender.models.popularity import popular, training_counts
from recipes.recommender.split import leave_one_out
from tests.recipes.recommender.builders import small_log


def naive_metrics(scores, target):
    """Sort everything, look the target up."""
    order = sorted(range(1, len(scores)), key=lambda i: -scores[i])
    rank = order.index(target) + 1
    out = {"mrr": 1 / rank}
    for cut in (10, 50):
        out[f"hr@{cut}"] = float(rank <= cut)
        out[f"ndcg@{cut}"] = 1 / math.log2(rank + 1) if rank <= cut else 0.0
    return out


def test_metrics_equal_a_naive_oracle():
    """Ranks and metrics are those of sorting all scores, padding excluded."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 80, generator=generator)
    scores[:, 0] = 100.0
    targets = torch.randint(1, 80, (200,), generator=generator)
    got = Evaluation(np.arange(200), rank_of(scores, targets).numpy()).per_user()
    for row in range(200):
        want = naive_metrics(scores[row].tolist(), int(targets[row]))
        assert {k: v[row] for k, v in got.items()} == pytest.approx(want)


def test_a_constant_score_earns_the_middle():
    """Ties count half, so scoring everything alike ranks the target in the middle."""
    assert rank_of(torch.zeros(1, 12), torch.tensor([3])).tolist() == [6.0]


def test_masking_only_moves_targets_up():
    """The masked protocol leaves seen items out but never the target: ranks can only improve."""
    split = leave_one_out(small_log(), 20)
    torch.manual_seed(0)
    model = HSTU(split.log.num_items, Settings(dimension=8, max_history=20)).train()
    plain, masked = (evaluate(model, split, split.test, mask_seen=m, batch_size=5) for m in (False, True))
    assert (masked.ranks <= plain.ranks).all()
    assert (masked.ranks < plain.ranks).any()
    assert model.training


def test_batch_size_does_not_change_ranks():
    """A user's rank does not depend on who is evaluated beside them."""
    split = leave_one_out(small_log(), 20)
    torch.manual_seed(0)
    model = HSTU(split.log.num_items, Settings(dimension=8, max_history=20))
    np.testing.assert_array_equal(
        evaluate(model, split, split.valid, batch_size=1).ranks, evaluate(model, split, split.valid).ranks
    )


def test_popularity_counts_training_events_only():
    """Counts leave held-out events out, and the popular list follows them."""
    split = leave_one_out(small_log(seed=5))
    counts = training_counts(split)
    assert counts.sum() == len(split.log.items) - 2 * split.log.num_users
    top = popular(split, 5)
    assert counts[top[0]] == counts.max()
    assert 0 not in top
    assert evaluate_popularity(counts, split.test).metrics()["mrr"] > 0
