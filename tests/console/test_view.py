"""What the report says about a run is what the store holds."""

import msgspec
import pytest

from tests.console.build import BEGIN_S, LOSS, QUALITY, load_result, record_run
from tradewind.console.view import collect, find_failures
from tradewind.errors import NotFoundError
from tradewind.store import Attempt, Event, Run, Store


def test_a_recorded_run_is_read_back(store: Store) -> None:
    """Ledger, failure, recovery, steps and curves come out as they were recorded."""
    view = collect(record_run(store), store)
    assert view.wall_s == 62.0
    assert sum(view.ledger.values()) == pytest.approx(view.wall_s, abs=1e-6)
    (failure,) = view.failures
    assert (failure.rank, failure.kind, failure.t_s, failure.recovered_s, failure.step) == (
        1,
        "killed",
        30.5,
        3.1,
        251,
    )
    assert view.last_step == 600
    assert [step for step, _ in view.curves[LOSS]] == [float(step) for step in range(1, 601)]
    assert len(view.curves[QUALITY]) == 12
    productive = view.ledger["compute"] + view.ledger["communication"]
    assert view.goodput == pytest.approx(productive / 62.0)


def test_repeated_steps_show_the_latest_attempt(store: Store) -> None:
    """A step done again after a failure shows the value of the attempt that counts."""
    from tradewind.store import Metric

    run = store.add_run(Run(id="0" * 12, name="r", created_s=BEGIN_S)).id
    for attempt, rank, value in ((1, 0, 5.0), (0, 0, 9.0), (1, 1, 7.0)):
        store.add_metrics(
            [Metric(run=run, attempt=attempt, rank=rank, step=3, name=LOSS, value=value, t_s=0)]
        )
    assert collect(run, store).curves == {LOSS: [(3.0, 5.0)]}


def test_failures_are_paired_with_their_own_recovery() -> None:
    """A second failure before any step leaves the first one without a recovery."""

    def event(t_s: float, kind: str) -> Event:
        return Event(
            run="r", attempt=0, t_s=t_s, kind=kind, data={"seconds": 2.0} if kind == "recovered" else {}
        )

    history = [event(10, "failure"), event(20, "failure"), event(22, "recovered"), event(40, "failure")]
    found = find_failures(history, begin_s=5.0)
    assert [(f.t_s, f.recovered_s) for f in found] == [(5.0, None), (15.0, 2.0), (35.0, None)]


def test_load_results_are_found_among_the_events(store: Store) -> None:
    """Results kept by `tradewind load --run`, and by a newer version with fields unknown here, come back."""
    run = record_run(store)
    for result in (load_result(2, 1600, 1, 2, 3, 4, 0.5), load_result(0.5, 400, 1, 2, 3, 4, 0)):
        data = msgspec.to_builtins(result) | {"field_of_the_future": 1}
        store.add_events([Event(run=run, attempt=0, t_s=BEGIN_S + 500, kind="load", data=data)])
    view = collect(run, store)
    assert [load.multiple for load in view.loads] == [0.5, 2]
    assert view.wall_s == 62.0


def test_a_run_that_has_only_been_submitted(store: Store) -> None:
    """No attempt, no event, no metric: an empty view, not a crash."""
    store.add_run(Run(id="1" * 12, name="new", created_s=BEGIN_S))
    view = collect("new", store)
    assert (view.wall_s, view.ledger, view.goodput, view.last_step, view.failures) == (
        0.0,
        {},
        None,
        None,
        [],
    )
    with pytest.raises(NotFoundError):
        collect("no-such-run", store)


def test_a_running_run_ends_at_its_last_event(store: Store) -> None:
    """While a run is going on, its ledger adds up to the time until its last event."""
    run = store.add_run(Run(id="2" * 12, name="r", state="running", created_s=BEGIN_S)).id
    store.add_attempt(Attempt(run=run, index=0, state="running", started_s=BEGIN_S + 1))
    store.add_events([Event(run=run, attempt=0, rank=0, t_s=BEGIN_S + at, kind=kind, data={"step": 1}) for at, kind in ((2, "start"), (9, "step"))])  # fmt: skip
    view = collect(run, store)
    assert view.wall_s == 9.0
    assert sum(view.ledger.values()) == pytest.approx(9.0)
