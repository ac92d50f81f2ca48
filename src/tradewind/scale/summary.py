"""From the record of every request to the result of a run."""

import bisect
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from tradewind.scale.histogram import Histogram
from tradewind.scale.outcome import FAIL, NO_VERDICT, PASS, Audit, LoadPlan, LoadResult, Slice, judge
from tradewind.scale.recorder import ERROR, IN_TIME, LATE, PENDING, REFUSED, Recorder
from tradewind.scale.settle import settle_s
from tradewind.scale.shape import make_shape
from tradewind.scale.stream import Stream

TIMELINE_STEPS = 120
LEAST_STEP_S = 0.05


class Counted(NamedTuple):
    """The requests that count: after the warm-up, with an outcome. Seconds are counted from the warm-up's end."""

    numbers: list[int]
    due_s: list[float]
    seconds: float
    """Length of what was measured; shorter than planned when it was interrupted."""


def summarize(
    plan: LoadPlan, stream: Stream, record: Recorder, audit: Audit, started_s: float, stopped_s: float | None
) -> LoadResult:
    """The result; `stopped_s` is when the run was interrupted, in seconds from its beginning."""
    counted = _counted(plan, stream, record, stopped_s)
    total = _slice("all", counted.numbers, 0.0, counted.seconds, record)
    latency = _latencies(counted.numbers, record)
    lag, refusals = Histogram(), Histogram()
    for number in counted.numbers:
        lag.record(record.lag_ms[number])
        if record.outcomes[number] == REFUSED:
            refusals.record(record.latency_ms[number])
    starved = sum(record.starved[number] for number in counted.numbers)
    attainment = total.attainment if total.offered else 0.0
    verdict, why = judge(plan, total.offered, attainment, lag.quantile(0.99), starved, audit.cpu_share)
    kept = verdict != NO_VERDICT
    classes = _classes(plan, stream, record, counted, kept)
    if kept and (missed := [one.name for one in classes if one.verdict == FAIL]):
        verdict, why = FAIL, f"missed by class {', '.join(missed)}; {why}"
    if stopped_s is not None:
        verdict = NO_VERDICT
        why = f"interrupted after {counted.seconds:.1f} of {plan.duration_s:g} s: partial results"
    return LoadResult(
        url=plan.url,
        rate=plan.rate,
        duration_s=counted.seconds,
        deadline_ms=plan.deadline_ms,
        objective=plan.objective,
        seed=plan.seed,
        offered=total.offered,
        sent=sum(record.sent[number] for number in counted.numbers),
        ok=sum(record.outcomes[number] in (IN_TIME, LATE) for number in counted.numbers),
        in_deadline=total.in_deadline,
        refused=total.refused,
        errors=total.errors,
        statuses=_statuses(counted.numbers, record),
        offered_per_s=total.offered / counted.seconds,
        goodput_per_s=total.goodput_per_s,
        attainment=attainment,
        p50_ms=latency.quantile(0.5),
        p90_ms=latency.quantile(0.9),
        p99_ms=latency.quantile(0.99),
        p999_ms=latency.quantile(0.999),
        mean_ms=latency.mean_ms,
        max_ms=latency.max_ms,
        refused_p99_ms=refusals.quantile(0.99),
        schedule_lag_p50_ms=lag.quantile(0.5),
        schedule_lag_p99_ms=lag.quantile(0.99),
        schedule_lag_max_ms=lag.max_ms,
        starved=starved,
        kept_schedule=kept,
        verdict=verdict,
        why=why,
        multiple=plan.multiple,
        started_s=started_s,
        histogram=latency.to_dict(),
        classes=classes,
        phases=_phases(plan, record, counted),
        endpoints=_endpoints(plan, stream, record, counted),
        timeline=_timeline(plan, record, counted),
        shape=plan.shape,
        peak=None if plan.shape == "steady" else plan.peak,
        audit=audit,
        partial=stopped_s is not None,
    )


def _counted(plan: LoadPlan, stream: Stream, record: Recorder, stopped_s: float | None) -> Counted:
    numbers = [
        number
        for number, at in enumerate(stream.arrivals)
        if at >= plan.warmup_s and record.outcomes[number] != PENDING
    ]
    due_s = [stream.arrivals[number] - plan.warmup_s for number in numbers]
    seconds = (
        plan.duration_s if stopped_s is None else min(max(stopped_s - plan.warmup_s, 1e-3), plan.duration_s)
    )
    return Counted(numbers, due_s, seconds)


def _latencies(numbers: Sequence[int], record: Recorder) -> Histogram:
    """Of 2xx answers, and of given-up requests at the age they had reached."""
    histogram = Histogram()
    for number in numbers:
        outcome, latency_ms = record.outcomes[number], record.latency_ms[number]
        if outcome in (IN_TIME, LATE) or (outcome == ERROR and latency_ms >= 0):
            histogram.record(latency_ms)
    return histogram


def _statuses(numbers: Sequence[int], record: Recorder) -> dict[str, int]:
    return dict(Counter(record.status_of(number) for number in numbers).most_common())


def _slice(name: str, numbers: Sequence[int], begin_s: float, end_s: float, record: Recorder) -> Slice:
    outcomes = Counter(record.outcomes[number] for number in numbers)
    latency = _latencies(numbers, record)
    return Slice(
        name=name,
        begin_s=begin_s,
        end_s=end_s,
        offered=len(numbers),
        in_deadline=outcomes[IN_TIME],
        refused=outcomes[REFUSED],
        errors=outcomes[ERROR],
        goodput_per_s=outcomes[IN_TIME] / max(end_s - begin_s, 1e-9),
        attainment=outcomes[IN_TIME] / len(numbers) if numbers else 1.0,
        p50_ms=latency.quantile(0.5),
        p99_ms=latency.quantile(0.99),
    )


def _classes(
    plan: LoadPlan, stream: Stream, record: Recorder, counted: Counted, kept: bool
) -> tuple[Slice, ...]:
    slices = []
    for index, kind in enumerate(plan.classes):
        numbers = [number for number in counted.numbers if stream.kinds[number] == index]
        found = _slice(kind.name, numbers, 0.0, counted.seconds, record)
        met = PASS if found.attainment >= kind.objective else FAIL
        slices.append(replace(found, verdict=met if kept else NO_VERDICT))
    return tuple(slices)


def _endpoints(plan: LoadPlan, stream: Stream, record: Recorder, counted: Counted) -> tuple[Slice, ...]:
    if not plan.endpoints:
        return ()
    slices = []
    for index, url in enumerate([plan.url, *(endpoint.url for endpoint in plan.endpoints)]):
        numbers = [number for number in counted.numbers if stream.endpoints[number] == index]
        slices.append(_slice(url, numbers, 0.0, counted.seconds, record))
    return tuple(slices)


def _phases(plan: LoadPlan, record: Recorder, counted: Counted) -> tuple[Slice, ...]:
    if plan.shape == "steady":
        return ()
    good = [record.outcomes[number] == IN_TIME for number in counted.numbers]
    slices = []
    for at, phase in enumerate(make_shape(plan.shape, plan.peak).phases):
        begin_s, end_s = phase.begin * plan.duration_s, min(phase.end * plan.duration_s, counted.seconds)
        if begin_s >= end_s:
            break
        found = _slice(phase.name, _between(counted, begin_s, end_s), begin_s, end_s, record)
        settled = settle_s(counted.due_s, good, begin_s, end_s) if at else None
        slices.append(replace(found, settle_s=settled))
    return tuple(slices)


def _timeline(plan: LoadPlan, record: Recorder, counted: Counted) -> tuple[Slice, ...]:
    if plan.shape == "steady":
        return ()
    step_s = max(counted.seconds / TIMELINE_STEPS, LEAST_STEP_S)
    steps = max(int(counted.seconds / step_s + 1e-9), 1)
    return tuple(
        _slice("", _between(counted, at * step_s, (at + 1) * step_s), at * step_s, (at + 1) * step_s, record)
        for at in range(steps)
    )


def _between(counted: Counted, begin_s: float, end_s: float) -> list[int]:
    begin, end = (bisect.bisect_left(counted.due_s, at) for at in (begin_s, end_s))
    return counted.numbers[begin:end]
