"""The queue of one model: sorted by due time in each class, counted, and which level may answer whom."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.simulated import VirtualLoop
from tradewind.serve.caller import Caller
from tradewind.serve.jobs import Job, Prepared
from tradewind.serve.lanes import SPARE_SHARE, Instant, Lane, Level
from tradewind.serve.profile import Profile


def in_loop(scenario) -> None:
    """Jobs belong to a running loop."""

    async def main():
        scenario()

    with contextlib.closing(VirtualLoop()) as loop:
        loop.run_until_complete(main())


def lane(*most: int, instant: bool = False, classes: int = 1) -> Lane:
    levels = [Level(f"level{i}", f"p{i}", Profile({1: 1.0}), m) for i, m in enumerate(most or (10,))]
    return Lane("m", levels, classes, instant=Instant("list", lambda prepared: {}) if instant else None)


def job(due_s: float, rows: int = 1, rank: int = 0) -> Job:
    return Job(Prepared({}, rows, "key"), due_s, 0.0, Caller("t", rank))


def test_a_level_with_less_to_do_is_not_believed_to_take_longer():
    """Measured while all was slow, and never again since a better one is chosen; one above is left as it is."""
    made = Lane("m", [Level(name, name, Profile({1: 0.01, 4: 0.02})) for name in ("best", "next", "last")])
    for _ in range(50):
        made.observe(2, 4, 0.1)
    for _ in range(50):
        made.observe(1, 4, 0.02)
    best, better, last = (level.profile for level in made.levels)
    for rows in range(1, 5):
        assert last.bound_s(rows) == pytest.approx(better.bound_s(rows))
        assert last.latency_s(rows) <= last.bound_s(rows)
    assert last.full_s == last.bound_s(4)
    assert best.points == {1: 0.01, 4: 0.02}


@given(
    asked=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 2)), min_size=1, max_size=30), data=st.data()
)
def test_each_class_stays_sorted_and_counts_its_rows(asked, data):
    """Earliest due first, rows counted through adding, taking and leaving."""

    def scenario():
        made = lane(classes=3)
        jobs = [job(float(at), at % 3 + 1, rank) for at, rank in asked]
        for one in jobs:
            made.add(one)
        for rank, queue in enumerate(made.queues):
            assert [j.due_s for j in queue] == sorted(float(at) for at, r in asked if r == rank)
        at, order = data.draw(st.integers(0, 21)), data.draw(st.permutations(range(3)))
        before = sum(j.rows for j in jobs if j.rank == order[0] or (j.rank == order[1] and j.due_s <= at))
        assert made.rows_before(order[1], at, order) == before
        assert [j.rank for j in made.in_order(order)] == sorted(
            (j.rank for j in jobs), key=lambda rank: order.index(rank)
        )
        gone = data.draw(st.sets(st.sampled_from(jobs)))
        assert set(made.remove(gone)) == gone
        assert made.remove(gone) == []
        left = [j for j in jobs if j not in gone]
        assert made.length == len(left)
        assert made.rows == [sum(j.rows for j in left if j.rank == rank) for rank in range(3)]

    in_loop(scenario)


def test_a_level_that_cannot_give_k_items_does_not_answer_who_asks_for_them():
    """The floor is the cheapest level that is accepted and that is large enough; the popular list is for everyone."""
    made = lane(500, 200, 100)
    sizes = (None, 10, 100, 101, 200, 201, 500, 501)
    assert [made.accepts(None, k).floor for k in sizes] == [2, 2, 2, 1, 1, 0, 0, 0]
    assert [made.accepts(1, k).floor for k in sizes] == [1, 1, 1, 1, 1, 0, 0, 0]
    listed = lane(500, 200, instant=True)
    assert listed.accepts() == listed.accepts(2) == (1, True)
    assert listed.accepts(None, 300) == listed.accepts(2, 300) == (0, True)
    assert listed.accepts(1, 300) == (0, False)


def test_no_level_on_the_way_to_the_cheapest_gives_too_few():
    """One that could give enough is not taken where the one before it could not."""
    assert lane(500, 40, 100).accepts(None, 60) == (0, False)
    assert lane(500, 40, 100, instant=True).accepts(None, 60) == (0, True)
    assert lane(500, 40, 100).accepts(None, 40) == (2, False)


@given(
    asked=st.lists(
        st.tuples(st.integers(0, 20), st.integers(-5, 10), st.integers(0, 1)), min_size=1, max_size=30
    ),
    now=st.integers(0, 20),
)
def test_what_is_overdue_is_found_wherever_it_stands(asked, now):
    """As a look at every request finds it: also behind some that may begin later."""

    def scenario():
        made = lane(classes=2)
        for due_s, lead_s, rank in asked:
            one = job(float(due_s), rank=rank)
            one.last_start_s = float(due_s - lead_s)
            made.add(one)
        everything = [one for queue in made.queues for one in queue]
        assert made.overdue(float(now)) == [one for one in everything if one.last_start_s < now]

    in_loop(scenario)


def test_a_request_must_be_there_in_time_for_the_cheapest_level_that_it_accepts():
    """Less what writing takes, and what is kept of its budget for a batch that overruns."""
    made = Lane(
        "m",
        [Level("best", "p0", Profile({1: 4.0})), Level("next", "p1", Profile({1: 1.0}))],
        instant=Instant("list", lambda prepared: {}),
    )
    best_s, next_s = (level.profile.bound_s(1) for level in made.levels)
    assert best_s > next_s > 0
    made.writing.observe(0.5)
    writing_s = made.writing.bound_s
    assert writing_s > 0
    assert made.due_s(100.0, 80.0) == 100.0 - writing_s - SPARE_SHARE * 20.0
    for stated, seconds in ((0, best_s), (1, next_s), (2, next_s)):
        assert made.last_entry_s(100.0, 80.0, made.accepts(stated)) == made.due_s(100.0, 80.0) - seconds
