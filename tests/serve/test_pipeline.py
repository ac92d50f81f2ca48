"""The recommendation pipeline on a real package, against the scores computed by hand."""

import itertools

import numpy as np
import pytest
import torch

from tests.serve.conftest import BAD_USER, NUM_ITEMS, POPULAR
from tradewind.models import open_package
from tradewind.retrieve import build
from tradewind.serve.ladder import Rung
from tradewind.serve.pipeline import Recommender
from tradewind.serve.programs import Programs


@pytest.fixture(scope="module")
def package(recommender):
    return open_package(recommender)


@pytest.fixture(scope="module")
def with_prerank(preranked):
    return open_package(preranked)


def pipeline(
    package,
    table: np.ndarray,
    *,
    candidates: int = 20,
    ranks: bool = True,
    preranked: int = 0,
    popular=POPULAR,
):
    rung = Rung("level", candidates, ranks, preranked)
    return Recommender(Programs(package), build("exact", table, skip=1), rung, popular)


def batch(*users: dict) -> dict[str, torch.Tensor]:
    """Users as {"values": [...], "seen": [...], "k": n, "user": [...]}."""
    values = [u.get("values", [0]) for u in users]
    seen = [u.get("seen", []) for u in users]
    flat = torch.tensor([v for row in values for v in row])
    return {
        "values": flat,
        "timestamps": torch.zeros_like(flat),
        "ratings": torch.zeros(len(flat)),
        "lengths": torch.tensor([len(row) for row in values]),
        "now": torch.ones(len(users), dtype=torch.int64),
        "k": torch.tensor([u.get("k", 5) for u in users]),
        "seen": torch.tensor([s for row in seen for s in row], dtype=torch.int64),
        "num_seen": torch.tensor([len(row) for row in seen]),
        "user": torch.tensor([u.get("user", [0.0, 0.0]) for u in users]),
    }


def best(table: np.ndarray, values: list[int], seen: list[int], k: int) -> list[int]:
    """The k items with the largest inner product with the mean of the history, by hand."""
    scores = table @ table[values].mean(0)
    return [i for i in np.argsort(-scores).tolist() if i not in {0, *seen}][:k]


@pytest.mark.parametrize("ranks", [True, False])
def test_each_user_gets_their_own_best_items_whatever_the_batch(package, table, ranks):
    """Jagged histories, different exclusions, one batch."""
    users = [
        {"values": [1, 2, 3], "seen": [1, 2, 3]},
        {"values": [9], "seen": []},
        {"values": [4, 5], "seen": [4, 5, 6, 7, 8]},
    ]
    top = pipeline(package, table, ranks=ranks)(batch(*users))
    assert top["items"].tolist() == [best(table, u["values"], u["seen"], 5) for u in users]
    assert (top["scores"].diff(dim=1) <= 0).all()


@pytest.mark.parametrize("ranks", [True, False])
def test_the_pre_ranker_chooses_whom_the_ranker_sees(with_prerank, table, ranks):
    """Of the 20 retrieved it leaves its best six (the test's likes those that retrieval likes least)."""
    users = [{"values": [1, 2], "seen": [1, 2]}, {"values": [9]}]
    top = pipeline(with_prerank, table, ranks=ranks, preranked=6)(batch(*users))
    for row, user in enumerate(users):
        left = best(table, user["values"], user.get("seen", []), 20)[-6:]
        assert top["items"][row].tolist() == (left[:5] if ranks else left[:0:-1])


def test_who_asks_for_more_than_are_ranked_gets_the_others_behind_them(with_prerank, table):
    """Six are ranked, the next ones come as the pre-ranker likes them; beside somebody who asks for fewer."""
    users = [{"values": [1, 2], "seen": [1, 2], "k": 9}, {"values": [9], "k": 3}]
    for ranks, candidates in itertools.product((True, False), (20, NUM_ITEMS - 2)):
        level = pipeline(with_prerank, table, candidates=candidates, ranks=ranks, preranked=6)
        top = level(batch(*users))
        # Of all items those that retrieval likes least have scores below zero, and the others' are above.
        assert (top["scores"].diff(dim=1) <= 0).all()
        for row, user in enumerate(users):
            found = best(table, user["values"], user.get("seen", []), candidates)[::-1]
            assert top["items"][row].tolist() == [*(found[5::-1] if ranks else found[:6]), *found[6:9]]


def test_the_others_end_where_there_are_no_more_candidates(with_prerank, table):
    """All but five were seen, two are ranked: three come behind them, and then nothing."""
    seen = list(range(1, NUM_ITEMS - 4))
    top = pipeline(with_prerank, table, preranked=2)(batch({"values": [1], "seen": seen, "k": 8}))
    assert sorted(top["items"][0, :5].tolist()) == list(range(NUM_ITEMS - 4, NUM_ITEMS + 1))
    assert top["items"][0, 5:].tolist() == [0, 0, 0]
    assert top["scores"][0, 5:].tolist() == [-np.inf] * 3


def test_the_pre_ranker_leaves_no_candidate_that_there_is_not(with_prerank, table):
    """All but three were seen: those three, whatever it thinks of the padding."""
    seen = list(range(1, NUM_ITEMS - 2))
    top = pipeline(with_prerank, table, preranked=6)(batch({"values": [1], "seen": seen}))
    assert sorted(top["items"][0, :3].tolist()) == [NUM_ITEMS - 2, NUM_ITEMS - 1, NUM_ITEMS]
    assert top["items"][0, 3:].tolist() == [0, 0]


def test_levels_of_one_pipeline_share_what_they_loaded(with_prerank, table):
    """A level is a copy that has its own stages, and another's are as they were."""
    full = pipeline(with_prerank, table)
    level = full.at(Rung("level", 20, True, 6))
    assert level._rank is full._rank
    assert level.at(Rung("other", 10, True, 3))._prerank is level._prerank
    user = {"values": [9]}
    assert full(batch(user))["items"][0].tolist() == best(table, [9], [], 5)
    assert level(batch(user))["items"][0].tolist() == best(table, [9], [], 20)[-6:][:5]


def test_users_without_a_history_get_popular_items_beside_others_who_have_one(package, table):
    """In the package's order, scored by one over the rank; the rest of their row is empty."""
    top = pipeline(package, table)(batch({}, {"values": [9]}, {}))
    assert top["items"].tolist() == [[*POPULAR, 0, 0], best(table, [9], [], 5), [*POPULAR, 0, 0]]
    assert top["scores"][0].tolist() == pytest.approx([1, 1 / 2, 1 / 3, -np.inf, -np.inf])


def test_without_popular_items_the_model_answers_for_everyone(package, table):
    """A package that names none leaves the empty history to its encoder."""
    top = pipeline(package, table, popular=())(batch({}))
    assert (top["items"] > 0).all()


def test_a_row_ends_in_empty_items_where_there_are_no_more(package, table):
    """Everything but two items was seen."""
    seen = list(range(1, NUM_ITEMS - 1))
    top = pipeline(package, table)(batch({"values": [1], "seen": seen}))
    assert sorted(top["items"][0, :2].tolist()) == [NUM_ITEMS - 1, NUM_ITEMS]
    assert top["items"][0, 2:].tolist() == [0, 0, 0]
    assert top["scores"][0, 2:].tolist() == [-np.inf] * 3


def test_no_more_than_the_candidates_can_be_had(package, table):
    """The width is the largest k of the batch, at most the number of candidates."""
    top = pipeline(package, table, candidates=4)(batch({"values": [1], "k": 9}, {"values": [2], "k": 2}))
    assert top["items"].shape == (2, 4)


def test_a_model_that_gives_nan_fails(package, with_prerank, table):
    """It names the program; the dispatcher then finds out whose request it was."""
    with pytest.raises(ValueError, match="rank gave NaN"):
        pipeline(package, table)(batch({"values": [1]}, {"values": [2], "user": [BAD_USER, 0.0]}))
    with pytest.raises(ValueError, match="prerank gave NaN"):
        pipeline(with_prerank, table, preranked=5)(batch({"values": [1], "user": [BAD_USER, 0.0]}))
    broken = pipeline(package, table)
    broken._encode = lambda *inputs: torch.full((1, table.shape[1]), torch.nan)
    with pytest.raises(ValueError, match="encode gave NaN"):
        broken(batch({"values": [1]}))
