"""A run as the agent would have recorded it: two workers, one killed, recovered from a checkpoint."""

import math
from collections.abc import Iterable
from itertools import pairwise

from tradewind.scale.histogram import Histogram
from tradewind.scale.outcome import LoadPlan, LoadResult, judge
from tradewind.store import Attempt, Event, Metric, Run, Store

BEGIN_S = 1_790_000_000.0
LOSS, QUALITY = "loss", "validation ndcg@10"


def record_run(store: Store, name: str = "hstu-ml100k", script: str = "recipes/recommender/train.py") -> str:
    """Writes a run with a failure and its recovery to the store and returns its id."""
    run = store.add_run(
        Run(
            id="3fa9c1d20b7e",
            name=name,
            state="succeeded",
            created_s=BEGIN_S,
            started_s=BEGIN_S + 0.4,
            ended_s=BEGIN_S + 62.0,
            spec={"script": script, "args": ["--epochs", "20"], "workers": 2},
            snapshot="sha256:0badc0ffee" + "0" * 54,
        )
    )
    spans = [(0.4, 31.0, "failed", 1, "rank 1 was killed (SIGKILL)"), (31.0, 62.0, "succeeded", 0, None)]
    for index, (begin, end, state, code, reason) in enumerate(spans):
        store.add_attempt(Attempt(run=run.id, index=index))
        store.update_attempt(
            run.id, index, state=state, started_s=BEGIN_S + begin, ended_s=BEGIN_S + end, exit_code=code, reason=reason
        )  # fmt: skip
    store.add_events(sorted(events(run.id), key=lambda event: event.t_s))
    store.add_metrics(metrics(run.id))
    return run.id


def events(run: str) -> Iterable[Event]:
    """Both attempts' events: steps 1 to 290, killed, resumed at 250, on to 600."""

    def event(at: float, kind: str, attempt: int, rank: int | None = None, **data: object) -> Event:
        return Event(run=run, attempt=attempt, rank=rank, t_s=BEGIN_S + at, kind=kind, data=data)

    for attempt, begin, first, last, end in ((0, 0.4, 1, 290, 30.5), (1, 31.2, 251, 600, 61.7)):
        yield event(begin, "attempt_started", attempt)
        for rank in (0, 1):
            stepping = begin + 2.4 + 0.1 * rank
            yield event(begin + 0.1, "worker_started", attempt, rank, pid=100 + rank)
            yield event(begin + 1.1, "start", attempt, rank, world=2, pid=100 + rank)
            yield event(stepping, "step", attempt, rank, step=first)
            for step in range(first + 49 - (first - 1) % 50, last + 1, 50):
                share = (step - first) / (last - first)
                yield event(stepping + share * (end - stepping), "checkpoint", attempt, rank, step=step, bytes=1 << 20, stall_s=0.05)  # fmt: skip
            yield event(end - 0.01, "step", attempt, rank, step=last, last=True)
            yield event(
                end, "ledger", attempt, rank, buckets=buckets(end - begin - 1.1), wall_s=end - begin - 1.1
            )
            killed = attempt == 0 and rank == 1
            yield event(end, "worker_exit", attempt, rank, exit_code=-9 if killed else 0)
    killed_text = "rank 1 exited with signal 9 (SIGKILL)\nno exception: the process was killed from outside"
    yield event(30.5, "failure", 0, 1, **{"class": "killed", "text": killed_text})
    for rank in (0, 1):
        yield event(33.0, "resume", 1, rank, step=250, path="checkpoints/step-250")
    yield event(33.6, "recovered", 1, 0, seconds=3.1, step=251)
    for rank in (0, 1):
        yield event(36.9, "caught_up", 1, rank, step=290)


def buckets(wall_s: float) -> dict[str, float]:
    """A worker's own ledger of `wall_s` seconds."""
    shares = {
        "compute": 0.71,
        "communication": 0.13,
        "data_wait": 0.06,
        "checkpoint_stall": 0.02,
        "restore": 0.01,
    }
    return {name: wall_s * share for name, share in shares.items()}


def metrics(run: str) -> Iterable[Metric]:
    """A falling loss and a rising quality, steps 251 to 290 logged by both attempts."""
    for attempt, first, last in ((0, 1, 290), (1, 251, 600)):
        for step in range(first, last + 1):
            loss = 2.1 + 5.2 * math.exp(-step / 120) + 0.08 * math.sin(step * 1.7) * math.cos(step * 0.31)
            yield Metric(
                run=run, attempt=attempt, rank=0, step=step, name=LOSS, value=loss, t_s=BEGIN_S + step / 10
            )
            if step % 50 == 0:
                value = 0.19 * (1 - math.exp(-step / 160))
                yield Metric(run=run, attempt=attempt, rank=0, step=step, name=QUALITY, value=value, t_s=BEGIN_S + step / 10)  # fmt: skip


def loads() -> list[LoadResult]:
    """Half, once and twice a capacity of 800 per second against an endpoint that sheds."""
    return [
        load_result(0.5, 400, 6.1, 10.2, 21.0, 30.0, refused=0.0),
        load_result(1.0, 800, 12.4, 23.0, 41.0, 48.0, refused=0.004),
        load_result(2.0, 1600, 19.0, 31.0, 46.0, 55.0, refused=0.51),
    ]


def load_result(
    multiple: float,
    rate: float,
    p50: float,
    p90: float,
    p99: float,
    p999: float,
    refused: float,
    lag_ms: float = 0.8,
) -> LoadResult:
    """A result of ten seconds at `rate` with the given percentiles and share of refusals."""
    offered = int(rate * 10)
    num_refused = int(offered * refused)
    ok = offered - num_refused
    plan = LoadPlan(url="http://127.0.0.1:8080/v1/recommend", rate=rate, duration_s=10)
    verdict, why = judge(plan, offered, ok / offered, lag_ms, 0)
    histogram = Histogram()
    curve = [(0.0, p50 * 0.6), (0.3, p50), (1.0, p90), (2.0, p99), (3.0, p999), (4.0, p999 * 1.1)]
    for at in range(ok):
        nines = -math.log10(1 - at / ok)
        (low, begin), (high, end) = next(pair for pair in pairwise(curve) if nines <= pair[1][0])
        histogram.record(begin + (end - begin) * (nines - low) / (high - low))
    return LoadResult(
        url=plan.url, rate=rate, duration_s=10.0, deadline_ms=50.0, objective=0.99, seed=0, offered=offered,
        sent=offered, ok=ok, in_deadline=ok, refused=num_refused, errors=0,
        statuses={"200": ok, "429": num_refused}, offered_per_s=rate, goodput_per_s=ok / 10,
        attainment=ok / offered, p50_ms=p50, p90_ms=p90, p99_ms=p99, p999_ms=p999, mean_ms=p50, max_ms=p999,
        refused_p99_ms=1.2, schedule_lag_p50_ms=0.1, schedule_lag_p99_ms=lag_ms, schedule_lag_max_ms=lag_ms,
        starved=0, kept_schedule=verdict != "no-verdict", verdict=verdict, why=why, multiple=multiple,
        histogram=histogram.to_dict(),
    )  # fmt: skip
