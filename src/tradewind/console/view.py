"""What is known about a run, read from the store once and made ready to be shown."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from tradewind.scale.outcome import LoadResult
from tradewind.store import Attempt, Event, Metric, Run, Store

PRODUCTIVE = ("compute", "communication")
"""The ledger's buckets in which the model gets better."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A failure and, once training stepped again, its recovery."""

    t_s: float
    """Seconds since the run began."""
    attempt: int
    rank: int | None
    kind: str
    text: str
    recovered_s: float | None
    """Seconds from the failure to the next committed step."""
    step: int | None
    """That step."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the report shows it."""

    run: Run
    attempts: Sequence[Attempt]
    events: Sequence[Event]
    curves: dict[str, list[tuple[float, float]]]
    """Metric name -> (step, value) by step; where a step was repeated, its last value."""
    ledger: dict[str, float]
    loads: Sequence[LoadResult]
    begin_s: float
    end_s: float
    now_s: float

    @property
    def wall_s(self) -> float:
        """Seconds from the run's creation to its end, or to its last event while it runs."""
        return max(self.end_s - self.begin_s, 0.0)

    @property
    def goodput(self) -> float | None:
        """Share of wall time spent in compute and communication; None without a ledger."""
        total = sum(self.ledger.values())
        return sum(self.ledger.get(name, 0.0) for name in PRODUCTIVE) / total if total else None

    @property
    def last_step(self) -> int | None:
        """The highest step that anything reports."""
        said = [int(e.data["step"]) for e in self.events if isinstance(e.data.get("step"), int | float)]
        logged = [int(points[-1][0]) for points in self.curves.values() if points]
        return max(said + logged, default=None)

    @property
    def failures(self) -> list[Failure]:
        """Failures in order, each with the first recovery after it and before the next one."""
        return find_failures(self.events, self.begin_s)


def collect(
    ref: str, store: Store, load_results: Sequence[LoadResult] = (), now_s: float | None = None
) -> RunView:
    """Everything the store knows about the run that `ref` names; raises NotFoundError."""
    from tradewind.diagnose.ledger import run_ledger

    run = store.run(ref)
    events, attempts = store.events(run.id), store.attempts(run.id)
    now_s = time.time() if now_s is None else now_s
    training = [event for event in events if event.kind != "load"]
    begin_s = run.created_s
    last_s = max((event.t_s for event in training), default=run.started_s or begin_s)
    ledger = (
        run_ledger(training, attempts, created_s=begin_s, ended_s=run.ended_s or last_s) if attempts else {}
    )
    return RunView(
        run=run,
        attempts=attempts,
        events=training,
        curves=find_curves(store.metrics(run.id)),
        ledger=ledger,
        loads=sorted([*find_loads(events), *load_results], key=lambda load: load.offered_per_s),
        begin_s=begin_s,
        end_s=max(run.ended_s or last_s, begin_s),
        now_s=now_s,
    )


def find_loads(events: Sequence[Event]) -> list[LoadResult]:
    """The load results among a run's events; fields that a newer version wrote are ignored."""
    return [msgspec.convert(event.data, LoadResult, strict=False) for event in events if event.kind == "load"]


def find_curves(metrics: Sequence[Metric]) -> dict[str, list[tuple[float, float]]]:
    """Per metric its values by step, of the lowest rank that logs it; the latest attempt wins."""
    lowest: dict[str, int] = {}
    for metric in metrics:
        lowest[metric.name] = min(metric.rank, lowest.get(metric.name, metric.rank))
    found: dict[str, dict[int, float]] = {}
    for metric in sorted(metrics, key=lambda one: one.attempt):
        if metric.rank == lowest[metric.name]:
            found.setdefault(metric.name, {})[metric.step] = metric.value
    return {name: [(float(s), v) for s, v in sorted(by_step.items())] for name, by_step in found.items()}


def find_failures(events: Sequence[Event], begin_s: float) -> list[Failure]:
    """Pairs each failure with its recovery."""
    failed = sorted((e for e in events if e.kind == "failure"), key=lambda e: e.t_s)
    recovered = sorted((e for e in events if e.kind == "recovered"), key=lambda e: e.t_s)
    found = []
    for at, event in enumerate(failed):
        until = failed[at + 1].t_s if at + 1 < len(failed) else float("inf")
        again = next((e for e in recovered if event.t_s <= e.t_s < until), None)
        found.append(_failure(event, again, begin_s))
    return found


def _failure(event: Event, again: Event | None, begin_s: float) -> Failure:
    data: dict[str, Any] = event.data
    step = again.data.get("step") if again else None
    return Failure(
        t_s=event.t_s - begin_s,
        attempt=event.attempt,
        rank=event.rank,
        kind=str(data.get("class", "failure")),
        text=str(data.get("text") or data.get("exception") or ""),
        recovered_s=float(again.data.get("seconds", again.t_s - event.t_s)) if again else None,
        step=int(step) if step is not None else None,
    )
