"""Which levels there are, and which of them a request accepts."""

import pytest

from tradewind.errors import SpecError
from tradewind.serve.errors import RequestError
from tradewind.serve.ladder import Rung, floor_of, popular_name, program_levels, recommender_rungs
from tradewind.spec import QualityLevel

RANKS, PRERANKS = ("encode", "rank"), ("encode", "prerank", "rank")


def test_a_recommender_has_levels_with_nothing_to_configure():
    """All candidates ranked, parts of them where that is enough for an answer, the order of retrieval."""
    assert recommender_rungs((), 500, RANKS) == [
        Rung("rank-500", 500, True),
        Rung("rank-350", 350, True),
        Rung("rank-250", 250, True),
        Rung("rank-175", 175, True),
        Rung("rank-100", 100, True),
        Rung("retrieve-100", 100, False),
    ]
    assert [r.name for r in recommender_rungs((), 20, RANKS)] == [
        "rank-20",
        "rank-14",
        "rank-10",
        "retrieve-20",
    ]
    assert recommender_rungs((), 500, ("encode",)) == [Rung("retrieve-500", 500, False)]
    assert popular_name((), (3, 1)) == "popular"
    assert popular_name((), ()) is None


def test_a_pre_ranker_takes_the_place_of_fewer_candidates():
    """It chooses those that are ranked, of all candidates and then of fewer, and its own order comes last."""
    assert recommender_rungs((), 500, PRERANKS) == [
        Rung("rank-500", 500, True),
        Rung("rank-150-of-500", 500, True, 150),
        Rung("rank-75-of-500", 500, True, 75),
        Rung("rank-40-of-500", 500, True, 40),
        Rung("rank-40-of-350", 350, True, 40),
        Rung("rank-40-of-250", 250, True, 40),
        Rung("rank-40-of-125", 125, True, 40),
        Rung("prerank-100", 100, False, 100),
        Rung("prerank-40", 40, False, 40),
    ]
    assert recommender_rungs((), 40, PRERANKS) == [
        Rung("rank-40", 40, True),
        Rung("rank-12-of-40", 40, True, 12),
        Rung("rank-12-of-28", 28, True, 12),
        Rung("rank-12-of-20", 20, True, 12),
        Rung("prerank-40", 40, False, 40),
    ]
    assert [r.name for r in recommender_rungs((), 12, PRERANKS)] == ["rank-12", "prerank-12"]


def test_a_named_level_may_pre_rank():
    """No more than are retrieved."""
    named = (
        QualityLevel(candidates=300, prerank=60),
        QualityLevel(prerank=900),
        QualityLevel(prerank=30, rank=False, name="light"),
    )
    assert recommender_rungs(named, 500, PRERANKS) == [
        Rung("rank-60-of-300", 300, True, 60),
        Rung("rank-500-of-500", 500, True, 500),
        Rung("light", 500, False, 30),
    ]


def test_levels_are_those_that_the_endpoint_names():
    """No more of them than the package has items; the popular list only where it is named."""
    named = (QualityLevel(candidates=900, name="best"), QualityLevel(rank=False, candidates=50))
    assert recommender_rungs(named, 500, RANKS) == [Rung("best", 500, True), Rung("retrieve-50", 50, False)]
    assert popular_name(named, (1,)) is None
    assert popular_name((*named, QualityLevel(popular=True, name="list")), (1,)) == "list"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: recommender_rungs((QualityLevel(popular=True),), 5, RANKS), "popular list alone"),
        (lambda: recommender_rungs((QualityLevel(program="x"),), 5, RANKS), "name no program"),
        (lambda: recommender_rungs((QualityLevel(candidates=3),), 5, ("encode",)), "no program 'rank'"),
        (lambda: recommender_rungs((QualityLevel(prerank=3),), 5, RANKS), "no program 'prerank'"),
        (lambda: popular_name((QualityLevel(popular=True), QualityLevel()), (1,)), "as the last level"),
        (lambda: popular_name((QualityLevel(), QualityLevel(popular=True)), ()), "no popular items"),
        (lambda: program_levels((QualityLevel(program="x"),), ["a", "b"]), "the package has a, b"),
        (lambda: program_levels((QualityLevel(candidates=5),), ["a"]), "name a program each"),
    ],
    ids=range(8),
)
def test_levels_that_there_cannot_be_are_refused(make, why):
    """When the server starts, with what would be right."""
    with pytest.raises(SpecError, match=why):
        make()


def test_a_floor_is_a_name_or_a_number():
    """Beyond the last is the last; without one every level is accepted."""
    names = ["rank-20", "retrieve-20", "popular"]
    assert [floor_of(stated, names) for stated in (None, "rank-20", "popular", "1", 1, 99)] == [
        None,
        0,
        2,
        1,
        1,
        2,
    ]


@pytest.mark.parametrize("stated", ["best", "-1", True, 1.5, [], "9" * 40, ""])
def test_a_level_that_there_is_not_is_refused(stated):
    """400, and the message lists the levels."""
    with pytest.raises(RequestError, match="rank-20, popular") as caught:
        floor_of(stated, ["rank-20", "popular"])
    assert caught.value.status == 400
