"""Where a run's wall time went: buckets that add up to it.

Each rank is attributed on its own, and the run's ledger is the mean over ranks. The worker's own cumulative
`ledger` entries cover `[t - wall_s, t]`; the time around them is derived from when events happened.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol

from tradewind.diagnose.absence import Absence, absences

BUCKETS = (
    "compute",
    "communication",
    "data_wait",
    "checkpoint_stall",
    "restore",
    "recompute",
    "startup",
    "detection",
    "restart",
    "pending",
    "preempted",
    "suspended",
    "evicted",
    "other",
)
STEADY = ("compute", "communication", "data_wait")
"""What a worker does between two ledger entries while nothing special happens."""

Ledger = dict[str, float]


class EventLike(Protocol):
    """What the ledger reads of a store's event."""

    @property
    def attempt(self) -> int: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def t_s(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> dict[str, Any]: ...


class AttemptLike(Protocol):
    """What the ledger reads of a store's attempt."""

    @property
    def index(self) -> int: ...
    @property
    def started_s(self) -> float | None: ...
    @property
    def ended_s(self) -> float | None: ...


def run_ledger(
    events: Sequence[EventLike],
    attempts: Sequence[AttemptLike],
    *,
    created_s: float | None = None,
    ended_s: float | None = None,
) -> Ledger:
    """Seconds of wall time per bucket, from the run's creation (or first attempt) to its end.

    The mean over `rank_ledgers`; the values add up to the wall time within float error.
    """
    ledgers = list(rank_ledgers(events, attempts, created_s=created_s, ended_s=ended_s).values())
    if not ledgers:
        return dict.fromkeys(BUCKETS, 0.0)
    return {name: sum(ledger[name] for ledger in ledgers) / len(ledgers) for name in BUCKETS}


def rank_ledgers(
    events: Sequence[EventLike],
    attempts: Sequence[AttemptLike],
    *,
    created_s: float | None = None,
    ended_s: float | None = None,
) -> dict[int, Ledger]:
    """Seconds of wall time per bucket, for every rank; each adds up to the run's wall time."""
    ordered = sorted((a for a in attempts if a.started_s is not None), key=lambda a: a.index)
    starts = [a.started_s or 0.0 for a in ordered]
    begin_s = min(starts, default=ended_s) if created_s is None else created_s
    if begin_s is None:
        return {}
    end_s = newest_s(events, attempts, begin_s) if ended_s is None else ended_s
    edges = list(accumulate([begin_s, *starts, end_s], max))  # A clock set back must not make time negative.
    ranks = sorted({e.rank for e in events if e.rank is not None}) or [0]
    return {rank: rank_ledger(events, ordered, rank, edges) for rank in ranks}


def newest_s(events: Sequence[EventLike], attempts: Sequence[AttemptLike], begin_s: float) -> float:
    """The last instant of which anything is known; where the ledger of a run that has not ended stops."""
    bounds = [a.ended_s or a.started_s or begin_s for a in attempts]
    return max([begin_s, *bounds, *(e.t_s for e in events)])


def rank_ledger(
    events: Sequence[EventLike], attempts: Sequence[AttemptLike], rank: int, edges: Sequence[float]
) -> Ledger:
    """One rank's time between the first edge and the last; attempts begin at the edges between them."""
    ledger: Ledger = dict.fromkeys(BUCKETS, 0.0)
    ledger["pending"] = edges[1] - edges[0]
    reached = 0
    away = {absence.attempt: absence for absence in absences(events, attempts)}
    for attempt, (begin, end) in zip(attempts, pairwise(edges[1:]), strict=True):
        mine = [e for e in events if e.attempt == attempt.index]
        afterwards = "other" if attempt is attempts[-1] else "restart"
        absence = away.get(attempt.index)
        there_s = end if absence is None else min(max(absence.begin_s, begin), end)
        for name, seconds in attempt_ledger(mine, rank, begin, there_s, reached, afterwards).items():
            ledger[name] += seconds
        if absence is not None:
            for name, seconds in absence_ledger(absence, there_s, end).items():
                ledger[name] += seconds
        reached = max([reached, *(int(e.data["step"]) for e in steps_of(mine, rank))])
    return ledger


def absence_ledger(absence: Absence, begin: float, end: float) -> Ledger:
    """The time in `[begin, end]` of a run that was away: until an agent was back, and until all of them were."""
    walk = Walk(begin, end)
    walk.until(absence.back_s, absence.kind)
    walk.until(end, "restart")
    return walk.found


def attempt_ledger(
    events: Sequence[EventLike],
    rank: int,
    begin: float,
    end: float,
    reached: int = 0,
    afterwards: str = "restart",
) -> Ledger:
    """One rank's time in `[begin, end]`, from an attempt's start to the next one's.

    `reached` is the last step that earlier attempts had committed; doing it again is `recompute`. The
    time after a failure goes to `afterwards`.
    """
    mine = [e for e in events if e.rank == rank]
    steps = steps_of(events, rank)
    failed_s = min((e.t_s for e in events if e.kind == "failure"), default=None)
    waking = (
        "startup"
        if not any(e.data.get("restarts") for e in events if e.kind == "attempt_started")
        else "restart"
    )
    walk = Walk(begin, end if failed_s is None else min(max(failed_s, begin), end))
    meter = last_meter(mine)
    began = [meter.begin_s] if meter else [e.t_s for e in mine if e.kind == "start"] or [e.t_s for e in steps]
    if began:
        walk.until(began[0], waking)
        if meter:
            walk.until_measured(meter, waking)
        elif steps:
            walk.until(steps[0].t_s, waking)
        if steps:
            walk.until_like(steps[-1].t_s, meter)
        move_recompute(walk.found, meter, mine, reached)
    walk.until(walk.end, "detection" if failed_s is not None and began else "other")
    walk.found[afterwards] += end - walk.end
    return walk.found


class Meter:
    """A worker's own cumulative ledger: seconds by bucket over `[begin_s, end_s]`."""

    def __init__(self, t_s: float, data: Mapping[str, Any]) -> None:
        self.buckets: Ledger = {str(k): float(v) for k, v in dict(data.get("buckets", {})).items()}
        self.end_s = t_s
        self.begin_s = t_s - float(data.get("wall_s", 0.0))

    @property
    def looping_s(self) -> float:
        """When the first step began: startup and restore come before it."""
        return self.begin_s + self.buckets.get("startup", 0.0) + self.buckets.get("restore", 0.0)

    def steady(self) -> Ledger:
        """What the worker does while nothing special happens; all compute when nothing was measured."""
        found = {name: self.buckets.get(name, 0.0) for name in STEADY}
        return found if sum(found.values()) > 0 else {"compute": 1.0}


class Walk:
    """A cursor that moves through an interval and attributes what it passes."""

    def __init__(self, begin: float, end: float) -> None:
        self.found: Ledger = defaultdict(float)
        self.at = begin
        self.end = end

    def advance(self, t_s: float) -> float:
        """Move to `t_s`, never back and not past the end; return how far that was."""
        before = self.at
        self.at = min(max(t_s, self.at), self.end)
        return self.at - before

    def until(self, t_s: float, bucket: str) -> None:
        """Attribute everything up to `t_s` to one bucket."""
        self.found[bucket] += self.advance(t_s)

    def until_measured(self, meter: Meter, waking: str) -> None:
        """Attribute what the meter covers as it says; what it leaves unexplained is `other`."""
        passed = self.advance(meter.end_s)
        total = sum(meter.buckets.values())
        scale = min(1.0, passed / total) if total > 0 else 0.0
        for name, seconds in meter.buckets.items():
            bucket = waking if name == "startup" else name if name in BUCKETS else "other"
            self.found[bucket] += seconds * scale
        self.found["other"] += passed - total * scale

    def until_like(self, t_s: float, meter: Meter | None) -> None:
        """Attribute up to `t_s` in the proportions of the meter's steady work."""
        passed = self.advance(t_s)
        mix = meter.steady() if meter else {"compute": 1.0}
        total = sum(mix.values())
        for name, seconds in mix.items():
            self.found[name] += passed * seconds / total


def steps_of(events: Sequence[EventLike], rank: int) -> list[EventLike]:
    """A rank's recorded steps (the first and the last of an attempt), by time."""
    return sorted((e for e in events if e.rank == rank and e.kind == "step"), key=lambda e: e.t_s)


def last_meter(events: Sequence[EventLike]) -> Meter | None:
    """The last cumulative ledger that a rank wrote in an attempt."""
    meters = [Meter(e.t_s, e.data) for e in events if e.kind == "ledger"]
    return max(meters, key=lambda m: m.end_s, default=None)


def move_recompute(found: Ledger, meter: Meter | None, mine: Sequence[EventLike], reached: int) -> None:
    """Rename the steady work that only regained steps of earlier attempts to `recompute`."""
    steps = sorted((e for e in mine if e.kind == "step"), key=lambda e: e.t_s)
    if not steps or int(steps[0].data["step"]) > reached:
        return
    caught = [e.t_s for e in mine if e.kind == "caught_up"]
    until_s = caught[0] if caught else steps[-1].t_s
    have = sum(found[name] for name in STEADY)
    regained = min(max(0.0, until_s - (meter.looping_s if meter else steps[0].t_s)), have)
    if have <= 0:
        return
    for name in STEADY:
        found[name] -= found[name] * regained / have
    found["recompute"] += regained
