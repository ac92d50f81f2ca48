"""What becomes of journal entries and of what the agent sees: rows in a real store."""

import math
from typing import Any

import pytest

from tradewind.agent.recorder import Progress, Recorder
from tradewind.diagnose.first_failure import Failure
from tradewind.errors import StoreError
from tradewind.store import Store

FAILURE = Failure(rank=1, kind="killed", exception="killed by SIGKILL", text="last", exit_code=-9, t_s=19.5)


def kinds(store: Store, kind: str | None = None) -> list[tuple[str, int, int | None, float]]:
    """Every event as (kind, attempt, rank, time)."""
    return [(e.kind, e.attempt, e.rank, e.t_s) for e in store.events("r", kind)]


def step(recorder: Recorder, rank: int, number: int, t_s: float) -> None:
    """A rank journals that it committed a step."""
    recorder.journal(rank, {"t": t_s, "kind": "step", "step": number})


def test_of_the_steps_of_an_attempt_the_first_and_the_last_are_kept(store: Store) -> None:
    """Hundreds of steps are two events a rank, while progress shows the newest that all have committed."""
    recorder = Recorder("r", store)
    recorder.attempt_started(0, 10.0, {"workers": 2})
    for number in range(1, 100):
        step(recorder, 0, number, 10.0 + number)
        step(recorder, 1, number - 1, 10.5 + number)
    assert recorder.progress.step == 98
    recorder.attempt_ended("succeeded", 0, "done")
    recorder.flush()
    assert kinds(store) == [
        ("attempt_started", 0, None, 10.0), ("step", 0, 0, 11.0), ("step", 0, 1, 11.5),
        ("step", 0, 0, 109.0), ("step", 0, 1, 109.5),
    ]  # fmt: skip
    assert [e.data["step"] for e in store.events("r", "step")] == [1, 0, 99, 98]
    attempt = store.attempts("r")[0]
    assert (attempt.state, attempt.started_s, attempt.exit_code, attempt.reason) == (
        "succeeded",
        10.0,
        0,
        "done",
    )
    assert attempt.ended_s is not None


def test_recovery_is_counted_from_the_failure_to_the_next_committed_step(store: Store) -> None:
    """The first rank to commit a step again ends the recovery, once; each rank says when it had caught up."""
    recorder = Recorder("r", store)
    recorder.attempt_started(0, 10.0, {})
    for number in (1, 2, 3):
        step(recorder, 0, number, 10.0 + number)
        step(recorder, 1, number, 10.0 + number)
    recorder.failure(FAILURE, 20.0)
    assert recorder.progress.state == "recovering"
    recorder.attempt_ended("failed", 1, "rank 1 was killed")
    recorder.attempt_started(1, 21.0, {"restarts": 1})
    assert (recorder.progress.state, recorder.progress.attempt) == ("running", 1)
    for number, t_s in ((2, 24.0), (3, 25.0), (4, 26.0)):
        step(recorder, 0, number, t_s)
        step(recorder, 1, number, t_s + 0.25)
    recorder.flush()
    assert recorder.progress.recovered_s == 4.0
    assert kinds(store, "recovered") == [("recovered", 1, 0, 24.0)]
    assert kinds(store, "caught_up") == [("caught_up", 1, 0, 25.0), ("caught_up", 1, 1, 25.25)]
    failure = store.events("r", "failure")[0]
    assert (failure.attempt, failure.rank, failure.t_s) == (0, 1, 20.0)
    assert failure.data == {
        "raised_s": 19.5, "class": "killed", "exception": "killed by SIGKILL", "text": "last",
        "exit_code": -9, "last_step": 3, "last_step_t_s": 13.0,
    }  # fmt: skip


def test_failures_before_it_has_caught_up_leave_all_to_regain(store: Store) -> None:
    """An attempt that dies before it has caught up leaves the step that has to be regained as it was."""
    recorder = Recorder("r", store)
    recorder.attempt_started(0, 10.0, {})
    step(recorder, 0, 5, 11.0)
    for attempt in (1, 2, 3):
        recorder.failure(FAILURE, 10.0 * attempt)
        recorder.attempt_ended("failed", 1, "")
        recorder.attempt_started(attempt, 10.0 * attempt + 1, {})
        if attempt == 2:
            step(recorder, 0, 3, 25.0)
    for number in (3, 4, 5):
        step(recorder, 0, number, 30.0 + number)
    recorder.flush()
    assert kinds(store, "caught_up") == [("caught_up", 3, 0, 35.0)]
    assert [e.data["seconds"] for e in store.events("r", "recovered")] == [5.0, 3.0]


def test_who_resumed_at_its_last_step_has_nothing_to_catch_up(store: Store) -> None:
    """After a checkpoint at the very step that was reached, the next step is new work."""
    recorder = Recorder("r", store)
    recorder.attempt_started(0, 10.0, {})
    step(recorder, 0, 5, 11.0)
    recorder.attempt_ended("failed", 1, "")
    recorder.attempt_started(1, 12.0, {})
    for number in (6, 7):
        step(recorder, 0, number, 13.0)
    recorder.flush()
    assert kinds(store, "caught_up") == []


def test_metrics_of_every_rank_are_kept_and_rank_0_is_shown(store: Store) -> None:
    """Metrics go to the store with attempt, rank and step, NaN included; progress shows rank 0's newest."""
    recorder = Recorder("r", store)
    recorder.attempt_started(2, 10.0, {})
    for rank, value in ((0, 1.5), (0, "nan"), (0, 0.5), (1, 9.0)):
        recorder.journal(rank, {"t": 11.0, "kind": "metric", "step": 7, "name": "loss", "value": value})
    recorder.flush()
    found = [(m.attempt, m.rank, m.step, m.value) for m in store.metrics("r", "loss")]
    assert [f for f in found if not math.isnan(f[3])] == [(2, 0, 7, 1.5), (2, 0, 7, 0.5), (2, 1, 7, 9.0)]
    assert len(found) == 4
    assert recorder.progress.metrics == {"loss": 0.5}


@pytest.mark.parametrize(
    ("kind", "stored"),
    [("start", True), ("resume", True), ("checkpoint", True), ("damaged", True), ("preempt", True),
     ("ledger", True), ("end", True), ("chatter", False)],
)  # fmt: skip
def test_which_entries_become_events(store: Store, kind: str, stored: bool) -> None:
    """Known kinds are kept with their fields, and what a script invents is not."""
    recorder = Recorder("r", store)
    recorder.journal(1, {"t": 3.0, "kind": kind, "step": 4, "path": "/x"})
    recorder.flush()
    expected = [(kind, 1, 3.0, {"step": 4, "path": "/x"})] if stored else []
    assert [(e.kind, e.rank, e.t_s, e.data) for e in store.events("r")] == expected
    assert recorder.progress.checkpoint == (4 if kind == "checkpoint" else None)


def test_nothing_is_written_before_a_flush_and_nothing_twice(store: Store) -> None:
    """Events wait for a flush, which says so; a second one has nothing to do."""
    recorder = Recorder("r", store)
    recorder.event("asked", data={"to": "stop"})
    assert recorder.dirty
    assert store.events("r") == []
    recorder.flush()
    recorder.flush()
    assert not recorder.dirty
    assert [e.data for e in store.events("r")] == [{"to": "stop"}]


class FailingStore:
    """A store that cannot be reached for its next `failures` writes, and counts how often that was met."""

    def __init__(self, store: Store, failures: int) -> None:
        self._store = store
        self.failures = failures
        self.met = 0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.met < self.failures:
                self.met += 1
                raise StoreError("the store x does not work: connection refused")
            return getattr(self._store, name)(*args, **kwargs)

        return call


@pytest.mark.parametrize("failures", range(1, 6))
def test_a_store_that_cannot_be_reached_does_not_end_the_run(
    store: Store, capsys: pytest.CaptureFixture[str], failures: int
) -> None:
    """What could not be written is kept, said once, and written in order when the store is back."""
    failing = FailingStore(store, failures)
    recorder = Recorder("r", failing)  # type: ignore[arg-type]
    recorder.attempt_started(0, 10.0, {})
    for number in range(1, 4):
        step(recorder, 0, number, 10.0 + number)
        recorder.journal(
            0, {"t": 10.0 + number, "kind": "metric", "step": number, "name": "l", "value": number}
        )
        recorder.journal(0, {"t": 10.0 + number, "kind": "checkpoint", "step": number})
        recorder.flush()
    recorder.attempt_ended("succeeded", 0, "done")
    for _ in range(failures):
        recorder.flush()
    assert failing.met == failures
    assert not recorder.dirty
    assert [m.step for m in store.metrics("r")] == [1, 2, 3]
    assert [e.data["step"] for e in store.events("r", "checkpoint")] == [1, 2, 3]
    assert [e.data["step"] for e in store.events("r", "step")] == [1, 3]
    assert len(store.events("r", "store_lost")) == 1
    assert [a.state for a in store.attempts("r")] == ["succeeded"]
    assert capsys.readouterr().err.count("the run goes on") == 1


def test_other_errors_of_the_store_are_not_hidden(store: Store) -> None:
    """Only a store that cannot be reached is waited for; what is wrong with a row is raised."""
    recorder = Recorder("unknown", store)
    recorder.event("asked")
    with pytest.raises(Exception, match="no run"):
        recorder.flush()


def test_progress_of_nobody_is_none() -> None:
    """Before any rank reports there is no step."""
    assert Progress().step is None
    assert Progress(steps={0: 3, 1: 2}).step == 2
