"""A batch is sent to a worker before it is idle: it never waits for the front process, and nothing is lost by it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.simulated import Ask, Simulation, capacity, in_time, linear, steady
from tests.serve.test_overload import TERMS as CLASSES
from tests.serve.test_overload import asks
from tradewind.serve.caller import Caller
from tradewind.serve.queues import Terms

COST = linear(0.002, 0.0005)
CAPACITY = capacity(COST, 16)
TERMS = Terms(slo_s=0.05)
HEARD_S = 0.003
LONG = linear(0.0005, 0.004)
"""Two rows make a batch that is worth sending ahead, and eight take most of a budget."""


def test_a_worker_does_not_wait_until_its_answer_was_heard_of():
    """Full batches take 10 ms, and each is heard of 3 ms later: a quarter of the capacity, if it had to wait for that."""
    asks = steady(2 * CAPACITY, 4)
    simulation = Simulation({"full": COST}, terms=TERMS, heard_after_s=HEARD_S)
    outcomes = simulation.run(asks)
    assert sum(o.in_time for o in outcomes) / 4 > 0.95 * CAPACITY
    learnt_s = simulation.dispatcher.profiles["full"].latency_s(16)
    assert abs(learnt_s - COST(16)) < 1e-4, "the wait at the worker is not the batch's"


def test_what_is_promised_is_kept_by_those_that_wait_at_a_worker():
    """Whoever is let in is answered in time, at any load."""
    for load in (0.5, 0.9, 1.2, 3.0):
        outcomes = Simulation({"full": COST}, terms=TERMS, heard_after_s=HEARD_S).run(
            steady(load * CAPACITY, 4)
        )
        admitted = [o for o in outcomes if o.status == 200]
        assert sum(o.in_time for o in admitted) / len(admitted) > 0.999, load


def test_few_requests_are_not_sent_ahead():
    """A small batch would do more if it were larger: it waits in the queue for those that still come."""
    simulation = Simulation({"full": COST}, terms=TERMS, heard_after_s=HEARD_S)
    asks = [Ask(0.0), *(Ask(0.001 + 0.0001 * i) for i in range(5)), Ask(0.003)]
    assert in_time(simulation.run(asks)) == 1.0
    assert [len(jobs) for _, _, jobs in simulation.started] == [1, 6]


def test_nothing_is_sent_behind_a_batch_that_is_overdue():
    """It may take for ever: what is more important, and comes later, is run before what waits for it in the queue."""
    simulation = Simulation({"full": COST}, max_batch=4, terms=Terms(shares=(0.5, 0.5), slo_s=0.5))
    simulation.workers[0]._costs = {"full": StallsOnce(1)}
    low = [Ask(0.05 + 0.001 * i, budget_s=0.5, caller=Caller("t", 1)) for i in range(4)]
    high = [Ask(0.07 + 0.001 * i, budget_s=0.5, caller=Caller("t", 0)) for i in range(4)]
    assert in_time(simulation.run([Ask(0.0, budget_s=0.5), *low, *high])) == 1.0
    assert [[job.rank for job in jobs] for _, _, jobs in simulation.started[:2]] == [[0], [0, 0, 0, 0]]


def test_what_waited_at_a_worker_that_died_is_not_taken_for_the_cause():
    """It is run again, and does not count as one of the three times after which a request is given up."""
    simulation = Simulation({"full": COST}, max_batch=4, terms=TERMS)
    simulation.workers[0].loses = 1
    outcomes = simulation.run([Ask(0.0, budget_s=0.5) for _ in range(12)])
    assert in_time(outcomes) == 1.0
    assert [job.tries for job in simulation.jobs] == [1] + [0] * 11, "the first was alone in its batch"


def test_what_could_be_answered_better_is_not_sent_ahead():
    """With cheaper levels whatever waits longer is answered worse: batches begin when the one before was heard of."""
    levels = {"full": COST, "cheap": linear(0.001, 0.0002)}
    simulation = Simulation(levels, terms=TERMS, heard_after_s=HEARD_S)
    simulation.run(steady(2 * CAPACITY, 0.07))
    ends = [at + [*levels.values()][level](len(jobs)) for at, level, jobs in simulation.started]
    begins = [at for at, _, _ in simulation.started]
    assert len(begins) > 5
    assert all(later - ended > HEARD_S - 1e-9 for ended, later in zip(ends, begins[1:], strict=False))


@settings(max_examples=40, deadline=None)
@given(asks, st.integers(1, 3), st.floats(0.3, 4.0), st.integers(0, 3))
def test_whatever_is_sent_ahead_has_one_end_and_is_not_begun_in_vain(asks, num_workers, slow_down, loses):
    """One answer each, whatever is wrong with the profile; no batch is begun that is late for all in it."""
    simulation = Simulation(
        {"full": LONG}, max_batch=8, num_workers=num_workers, terms=CLASSES, slow_down=slow_down
    )
    simulation.workers[0].loses = loses
    outcomes = simulation.run(
        [a._replace(floor=None, leaves_s=a.leaves_s and a.at_s + a.leaves_s) for a in asks]
    )
    assert len(outcomes) == len(asks)
    assert {o.status for o in outcomes} <= {200, 422, 429, 499, 503}
    assert simulation.dispatcher.in_flight == 0
    for begun_s, _, started in simulation.started:
        assert any(job.must_run or begun_s <= job.deadline_s + 1e-9 for job in started)


class StallsOnce:
    """A cost with one batch that takes 80 ms: the second, or another."""

    def __init__(self, number: int = 2) -> None:
        self._begun, self._number = 0, number

    def __call__(self, rows: int) -> float:
        self._begun += 1
        return 0.080 if self._begun == self._number else COST(rows)


def test_a_batch_that_would_be_late_for_all_in_it_is_not_begun():
    """The one before it stalls: those who waited behind it are told so, and the worker is there for who comes then."""
    simulation = Simulation({"full": COST}, max_batch=4, terms=TERMS)
    simulation.workers[0]._costs = {"full": StallsOnce()}
    outcomes = simulation.run([*(Ask(0.0) for _ in range(9)), *(Ask(0.09) for _ in range(3))])
    assert [o.status for o in outcomes] == [200] * 5 + [429] * 4 + [200] * 3
    assert [o.in_time for o in outcomes] == [True] + [False] * 8 + [True] * 3
    assert [len(jobs) for _, _, jobs in simulation.started[:2]] == [1, 4]
    assert sum(len(jobs) for _, _, jobs in simulation.started) == 8
