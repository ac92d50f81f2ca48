"""Which levels there are, and which of them a request accepts."""

import pytest

from tradewind.errors import SpecError
from tradewind.serve.errors import RequestError
from tradewind.serve.ladder import Rung, floor_of, popular_name, program_levels, recommender_rungs
from tradewind.spec import QualityLevel


def test_a_recommender_has_levels_with_nothing_to_configure():
    """All candidates ranked, parts of them where that is enough for an answer, the order of retrieval."""
    assert recommender_rungs((), 500, True) == [
        Rung("rank-500", 500, True),
        Rung("rank-350", 350, True),
        Rung("rank-250", 250, True),
        Rung("rank-175", 175, True),
        Rung("rank-100", 100, True),
        Rung("retrieve-100", 100, False),
    ]
    assert [r.name for r in recommender_rungs((), 20, True)] == [
        "rank-20",
        "rank-14",
        "rank-10",
        "retrieve-20",
    ]
    assert recommender_rungs((), 500, False) == [Rung("retrieve-500", 500, False)]
    assert popular_name((), (3, 1)) == "popular"
    assert popular_name((), ()) is None


def test_levels_are_those_that_the_endpoint_names():
    """No more of them than the package has items; the popular list only where it is named."""
    named = (QualityLevel(candidates=900, name="best"), QualityLevel(rank=False, candidates=50))
    assert recommender_rungs(named, 500, True) == [Rung("best", 500, True), Rung("retrieve-50", 50, False)]
    assert popular_name(named, (1,)) is None
    assert popular_name((*named, QualityLevel(popular=True, name="list")), (1,)) == "list"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: recommender_rungs((QualityLevel(popular=True),), 5, True), "popular list alone"),
        (lambda: recommender_rungs((QualityLevel(program="x"),), 5, True), "name no program"),
        (lambda: recommender_rungs((QualityLevel(candidates=3),), 5, False), "no program 'rank'"),
        (lambda: popular_name((QualityLevel(popular=True), QualityLevel()), (1,)), "as the last level"),
        (lambda: popular_name((QualityLevel(), QualityLevel(popular=True)), ()), "no popular items"),
        (lambda: program_levels((QualityLevel(program="x"),), ["a", "b"]), "the package has a, b"),
        (lambda: program_levels((QualityLevel(candidates=5),), ["a"]), "name a program each"),
    ],
    ids=range(7),
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
