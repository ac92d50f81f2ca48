"""Several models behind the same workers: whose turn it is, and what a prediction counts."""

import pytest

from tests.serve.test_lanes import in_loop
from tradewind.serve.audit import EVERY, KEPT, Audits, Sample
from tradewind.serve.caller import Caller
from tradewind.serve.jobs import Job, Prepared, Tensor
from tradewind.serve.lanes import Lane, Level
from tradewind.serve.profile import Profile
from tradewind.serve.queues import Queues, Terms, Workers
from tradewind.serve.smooth import Flow, Smooth

IDLE = Workers(free_at_s=0.0, idle=False, running=[], num_workers=1)


def queues(*names: str) -> Queues:
    """Models that take 10 ms for one row and for ten."""
    made = Queues(Terms((0.5, 0.3, 0.1), 0.05), 0.0)
    for name in names:
        made.lanes[name] = Lane(name, [Level(name, name, Profile({1: 0.010, 10: 0.010}))], 3)
    return made


def job(due_s: float, rank: int = 1, rows: int = 1) -> Job:
    return Job(Prepared({}, rows, "key"), due_s, 0.0, Caller("t", rank))


def test_the_class_counts_before_the_deadline_and_the_deadline_before_the_model():
    """A high request of one model goes before an earlier normal one of another."""

    def scenario():
        made = queues("a", "b")
        made.add(made.lanes["a"], job(0.1))
        assert made.most_urgent().name == "a"
        made.add(made.lanes["b"], job(0.05))
        assert made.most_urgent().name == "b"
        made.add(made.lanes["a"], job(9.0, rank=0))
        assert made.most_urgent().name == "a"

    in_loop(scenario)


def test_what_is_kept_for_a_batch_that_overruns_is_no_room():
    """A tenth of the SLO of 50 ms, beside the 12 ms of one that comes."""

    def scenario():
        made = queues("a")
        assert made.leaves_room(made.lanes["a"], 0.0325, 1, 0.0)
        assert not made.leaves_room(made.lanes["a"], 0.0335, 1, 0.0)

    in_loop(scenario)


def test_a_prediction_counts_what_runs_before_and_nothing_else():
    """Classes above and earlier deadlines, of other models too; not what comes after."""

    def scenario():
        made = queues("a", "b")
        lane = made.lanes["a"]

        def finish(rank: int) -> float:
            return made.verdict(lane, job(1.0, rank), IDLE, 0.0).finish_s

        alone = finish(1)
        made.add(lane, job(0.5, rank=2, rows=10))
        made.add(lane, job(2.0, rank=1, rows=10))
        assert finish(1) == alone
        made.add(lane, job(2.0, rank=0, rows=10))
        assert finish(1) == pytest.approx(alone + 0.012)
        assert finish(0) == alone
        made.add(made.lanes["b"], job(0.5, rank=1, rows=10))
        assert finish(1) == pytest.approx(alone + 0.012 + 0.010)

    in_loop(scenario)


def test_a_prediction_expects_the_next_batch_as_large_as_its_own_class_and_those_above_make_it():
    """Ten rows run, of which one is of the top class: the next batch of a top request is not that large for others' sake."""

    def scenario():
        made = queues()
        lane = made.lanes["a"] = Lane("a", [Level("a", "a", Profile({1: 0.010, 10: 0.100}))], 3)
        running = IDLE._replace(running=[(), (1, 0, 9), (2, 3, 0)])

        def finish(rank: int) -> float:
            return made.verdict(lane, job(1.0, rank), running, 0.0).finish_s

        profile = lane.cheapest.profile
        expected = [profile.bound_s(rows) for rows in (2, 5, 10)]
        assert [finish(rank) for rank in range(3)] == pytest.approx(expected)

    in_loop(scenario)


@pytest.mark.parametrize(
    ("others", "above_per_s", "rows"),
    [([], 0.0, 10), ([Caller("t", 0)], 0.0, 5), ([Caller("u", 1)], 0.0, 5), ([], 10.0, 5)],
    ids=["one-tenant", "two-classes", "two-tenants", "a-class-above-lately"],
)
def test_batches_are_smaller_where_several_want_to_be_in_them(others, above_per_s, rows):
    """Ten rows take 32 ms of the 45 that are not kept of an SLO of 50, bounded by 38.4; of five rows, two batches fit."""

    def scenario():
        made = queues()
        lane = made.lanes["a"] = Lane("a", [Level("a", "a", Profile({n: 0.0032 * n for n in (1, 5, 10)}))], 3)
        lane.flows[0].per_s = above_per_s
        for caller in [Caller("t", 1)] * 10 + others:
            made.add(lane, Job(Prepared({}, 1, "key"), 1.0, 0.0, caller))
        assert len(made.take_batch(lane, 1, 0.0, 0.0).run) == rows
        assert lane.room == rows

    in_loop(scenario)


def test_what_the_classes_above_have_asked_for_lately_is_taken_off():
    """A low request waits longer than what is queued before it says."""

    def scenario():
        made = queues("a")
        lane = made.lanes["a"]
        made.add(lane, job(0.5, rank=2, rows=10))
        before = made.verdict(lane, job(1.0, 2), IDLE, 0.0).finish_s
        lane.flows[0].per_s = 500.0  # half of what the model can do
        after = made.verdict(lane, job(1.0, 2), IDLE, 0.0).finish_s
        assert after - before == pytest.approx(0.012)
        assert made.verdict(lane, job(1.0, 0), IDLE, 0.0).finish_s < before

    in_loop(scenario)


def test_durations_and_rates_follow_what_is_seen():
    """A steady value is learned; the bound is above it while it varies."""
    seen, flow = Smooth(), Flow(0.1)
    for i in range(200):
        seen.observe(0.001 * (1 + i % 2))
        flow.count(5)
        flow.settle(0.01 * i)
    assert 0.0015 < seen.bound_s < 0.003
    assert flow.per_s == pytest.approx(500.0, rel=0.01)
    flow.settle(3.0)
    assert flow.per_s < 5.0


def test_samples_are_few_small_and_cheap():
    """One in so many, of one row, no more than are kept, and no more than a hundredth of the time."""
    lane = Lane("m", [Level("full", "p", Profile({1: 0.01}))])

    def sample(nbytes: int = 8, rows: int = 1) -> Sample:
        return Sample(
            lane, "less", Prepared({"x": Tensor("UINT8", (nbytes,), bytes(nbytes))}, rows, "key"), {}
        )

    audits = Audits()
    assert audits.due(0.0) is None
    for _ in range(EVERY * 2 * KEPT):
        audits.offer(sample(), 10.0)
    taken = 0
    while found := audits.due(10.0):
        audits.begin(found)
        taken += 1
    assert taken == KEPT
    large = Audits()
    for one in [sample(1 << 20), *[sample()] * (EVERY - 1), sample(rows=2)]:
        large.offer(one, 10.0)
    assert large.due(10.0) is None
    audits.offer(sample(), 10.0)
    for _ in range(EVERY):
        audits.offer(sample(), 10.0)
    audits.spent(0.01)
    assert audits.due(10.5) is None
    assert audits.due(12.1) is not None


@pytest.mark.parametrize(("start_s", "run", "late"), [(0.0, 2, 0), (0.01, 1, 1)])
def test_a_batch_is_chosen_for_when_it_begins(start_s, run, late):
    """Ten milliseconds a request: who is due in 15 is in time now, and is not in a batch that begins 10 later."""

    def scenario():
        made = queues()
        lane = made.lanes["a"] = Lane("a", [Level("a", "a", Profile({1: 0.01, 2: 0.011}))], 3)
        for due_s in (0.015, 0.04):
            made.add(lane, Job(Prepared({}, 1, "key"), due_s, 0.0))
        batch = made.take_batch(lane, 1, 0.0, start_s)
        assert (len(batch.run), len(batch.late)) == (run, late)

    in_loop(scenario)


def test_nobody_is_given_up_for_a_larger_batch_where_there_are_levels():
    """Thirty and one that is tight, after a refusal: it is given up for them only where the model has one level."""

    def scenario():
        profile, twice = Profile({1: 0.0047, 64: 0.0488}), Profile({1: 0.0094, 64: 0.0976})
        made = queues()
        for name, profiles in (("one", [profile]), ("two", [twice, profile])):
            levels = [Level(str(n), str(n), each) for n, each in enumerate(profiles)]
            made.lanes[name] = lane = Lane(name, levels, 3)
            for due_s in (0.030, *[0.2] * 30):
                queued = job(due_s)
                queued.floor = len(levels) - 1
                made.add(lane, queued)
            assert not made.verdict(lane, job(0.001), IDLE, 0.0).admit
        given_up = {name: len(made.take_batch(lane, 1, 0.0, 0.0).late) for name, lane in made.lanes.items()}
        assert given_up == {"one": 1, "two": 0}

    in_loop(scenario)
