"""A pre-ranker learns a ranker's opinion, and is a program of the package like any other."""

import math

import pytest
import torch

from tradewind.errors import SpecError
from tradewind.models import open_package, write_package
from tradewind.models.export import export_ranker
from tradewind.models.prerank import Candidates, PreRanker, distil, kept

ITEMS, DIMENSION, USERS, COUNT = 400, 8, 32, 100
TABLE = torch.randn(ITEMS, DIMENSION, generator=torch.Generator().manual_seed(1))


def found(seed: int) -> Candidates:
    """The best hundred by inner product."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(USERS, DIMENSION, generator=generator)
    scores, items = (query @ TABLE.T).topk(COUNT, dim=1)
    return Candidates(query, items, scores, torch.rand(USERS, 2, generator=generator))


def opinionated(query, candidates, scores, features):
    """What retrieval cannot know: some items are better for some users, by far."""
    likes = torch.tanh(TABLE[candidates, 0] * query[:, 1:2] + features[:, :1])
    return scores + 6.0 * likes + 3.0 * TABLE[candidates, 2].abs()


@pytest.fixture(scope="module")
def learnt():
    """The loss of each step, and the pre-ranker."""
    seeds, losses = iter(range(10_000)), []
    return losses, distil(
        opinionated,
        TABLE,
        lambda: found(next(seeds)),
        steps=150,
        on_step=lambda step, loss: losses.append(loss),
    )


def test_it_keeps_the_rankers_best_where_retrieval_does_not(learnt):
    """Of users that it has not met."""
    losses, prerank = learnt
    assert len(losses) == 150
    assert sum(losses[-10:]) < sum(losses[:10]) / 3
    held = found(-1)
    by_retrieval = kept(opinionated, lambda q, c, scores, f: scores, held, [30])[30]
    assert kept(opinionated, prerank, held, [30])[30] > (1 + by_retrieval) / 2


def test_it_gives_the_same_scores_once_its_items_are_folded():
    """And holds no more than the folded rows of its items."""
    torch.manual_seed(0)
    prerank, held = PreRanker(TABLE, DIMENSION, 2, hidden=4), found(3)
    before = prerank(*held)
    torch.testing.assert_close(prerank.fold()(*held), before)
    assert not any(p.requires_grad for p in prerank.parameters())
    assert sum(t.numel() for t in prerank.state_dict().values()) == (ITEMS + DIMENSION + 2 + 1 + 2) * 4
    torch.testing.assert_close(prerank.fold()(*held), before)


def test_a_package_holds_it(learnt, tmp_path):
    """For any number of users and candidates, one included."""
    program = export_ranker(learnt[1], DIMENSION, 2)
    write_package(tmp_path / "model", name="light", programs={"prerank": program})
    package = open_package(tmp_path / "model")
    held = found(5)
    torch.testing.assert_close(package.program("prerank")(*held), learnt[1](*held))
    one = Candidates(held.query[:1], held.items[:1, :1], held.scores[:1, :1], held.user_features[:1])
    torch.testing.assert_close(package.program("prerank")(*one), learnt[1](*one))


def test_what_it_keeps_is_counted():
    """Of the ranker's two best, by place in the pre-ranker's order."""
    ranked, light = torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[2.0, 1.0, 4.0, 3.0]])
    about = Candidates(torch.zeros(1, 1), torch.zeros(1, 4), torch.zeros(1, 4), torch.zeros(1, 0))
    shares = kept(lambda *_: ranked, lambda *_: light, about, [1, 2, 3, 4], best=2)
    assert shares == {1: 0.0, 2: 0.0, 3: 0.5, 4: 1.0}


@pytest.mark.parametrize("score", [math.nan, math.inf, 1.0])
def test_a_ranker_without_an_opinion_teaches_nothing(score):
    """It says so at the first step."""
    with pytest.raises(SpecError, match="nothing to learn"):
        distil(lambda q, c, s, f: torch.full_like(s, score), TABLE, lambda: found(0), steps=3)


def test_learning_does_not_touch_the_random_state():
    """Who calls it has seeds of their own; the same seed gives the same pre-ranker, and another one another."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (
        distil(opinionated, TABLE, lambda: found(0), steps=3, seed=seed) for seed in (2, 2, 3)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.folded, second.folded)
    assert not torch.equal(first.folded, other.folded)
