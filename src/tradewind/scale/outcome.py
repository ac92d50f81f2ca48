"""What a load run was asked for, what came of it, and what may be concluded."""

from typing import Any

import msgspec

PASS, FAIL, NO_VERDICT = "pass", "fail", "no-verdict"
_MAX_STARVED = 0.01


class TrafficClass(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of traffic of a plan, with a rate, a deadline and headers of its own."""

    name: str
    rate: float
    deadline_ms: float
    objective: float = 0.99
    headers: dict[str, str] = {}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A further endpoint, and how many requests it gets for each one of the plan's `url`."""

    url: str
    weight: float = 1.0


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send where, and what counts as good."""

    url: str
    rate: float
    """Requests offered per second."""
    duration_s: float
    deadline_ms: float = 50.0
    objective: float = 0.99
    """Share of the offered requests that must be answered inside the deadline for `pass`."""
    headers: dict[str, str] = {}
    schedule: str = "poisson"
    seed: int = 0
    warmup_s: float = 0.0
    """Load sent before `duration_s` begins and not counted."""
    connections: int = 512
    """Most connections open at once."""
    timeout_s: float | None = None
    """When a request is given up; ten deadlines, and at least 1 s, when None."""
    max_lag_ms: float | None = None
    """Largest p99 lateness of the generator itself; a tenth of the deadline, at least 2 ms, when None."""
    multiple: float | None = None
    """The rate as a multiple of measured capacity, when it was chosen so; kept in the result."""
    allow_remote: bool = False
    classes: tuple[TrafficClass, ...] = ()
    """Kinds of traffic; `rate` is the sum of theirs when there are any."""
    endpoints: tuple[Endpoint, ...] = ()
    """Where requests go beside `url`."""
    shape: str = "steady"
    """How the rate goes over `duration_s`; see `tradewind.scale.shape`."""
    peak: float = 3.0
    """Highest rate of a shape, as a multiple of `rate`."""
    speed: float = 1.0
    """How much faster than recorded a replay is sent."""
    max_cpu_share: float = 0.9
    """Most of one core that the generator may use before its own delays could pass for the server's."""

    def give_up_s(self) -> float:
        """Seconds after its due time at which a request is given up."""
        return self.timeout_s if self.timeout_s is not None else max(1.0, self.deadline_ms / 100)

    def lag_limit_ms(self) -> float:
        """The schedule lag above which no verdict is given."""
        return self.max_lag_ms if self.max_lag_ms is not None else max(2.0, self.deadline_ms / 10)


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a part of the requests: of a class, a phase or a moment."""

    name: str
    begin_s: float
    end_s: float
    """Seconds after the warm-up."""
    offered: int
    in_deadline: int
    refused: int
    errors: int
    goodput_per_s: float
    attainment: float
    p50_ms: float
    p99_ms: float
    verdict: str = ""
    """Of a class: whether its own objective was met."""
    settle_s: float | None = None
    """Of a phase: seconds until its goodput was steady; None for never, or where nothing had changed."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """How well the generator itself did, for whoever doubts its figures."""

    cpu_share: float
    """Of one core, over the run."""
    switched_out: int
    """Times the system took the core away from it."""
    connections: int
    """Opened in all."""
    clock_step_ms: float
    """By how much the wall clock was set meanwhile; latencies are of the monotonic clock and unharmed."""
    unfinished: int = 0
    """Requests that were due and had no outcome yet when the run was interrupted; not in any count."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the offered load; latencies count from the instant each request was due."""

    url: str
    rate: float
    duration_s: float
    deadline_ms: float
    objective: float
    seed: int
    offered: int
    """Requests that were due; `ok + refused + errors`."""
    sent: int
    ok: int
    """Answered with a 2xx status, in time or not."""
    in_deadline: int
    refused: int
    """Answered 429 or 503."""
    errors: int
    """Any other status, a broken connection, or no answer until the request was given up."""
    statuses: dict[str, int]
    """How often each status or failure came."""
    offered_per_s: float
    goodput_per_s: float
    """2xx answers inside the deadline, per second."""
    attainment: float
    """`in_deadline / offered`."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    mean_ms: float
    max_ms: float
    """Of 2xx answers, and of given-up requests at the age they had reached."""
    refused_p99_ms: float
    schedule_lag_p50_ms: float
    schedule_lag_p99_ms: float
    schedule_lag_max_ms: float
    """How late the generator itself was in handling a due request."""
    starved: int
    """Requests held back because every allowed connection was busy."""
    kept_schedule: bool
    verdict: str
    """`pass`, `fail`, or `no-verdict` when the generator could not keep its own schedule."""
    why: str
    multiple: float | None = None
    """Offered load as a multiple of measured capacity, when it was given so."""
    started_s: float = 0.0
    histogram: dict[str, Any] = {}
    """The latencies, as `Histogram.from_dict` reads them."""
    classes: tuple[Slice, ...] = ()
    phases: tuple[Slice, ...] = ()
    endpoints: tuple[Slice, ...] = ()
    timeline: tuple[Slice, ...] = ()
    """The run in equal steps; empty for steady load."""
    shape: str = "steady"
    peak: float | None = None
    audit: Audit | None = None
    partial: bool = False
    """Interrupted: only what was due until then is counted."""


def judge(
    plan: LoadPlan,
    offered: int,
    attainment: float,
    lag_p99_ms: float,
    starved: int,
    cpu_share: float = 0.0,
) -> tuple[str, str]:
    """The verdict and its reason; a generator that was late or held back has none to give."""
    if offered == 0:
        return NO_VERDICT, "no request was due: raise --rate or --duration"
    if lag_p99_ms > plan.lag_limit_ms():
        return NO_VERDICT, (
            f"the generator was {lag_p99_ms:.1f} ms late at p99 (limit {plan.lag_limit_ms():g} ms): "
            "give it a core of its own, or lower --rate"
        )
    if starved > _MAX_STARVED * offered:
        return NO_VERDICT, (
            f"{starved} of {offered} requests waited because all {plan.connections} connections were busy: "
            "raise --connections"
        )
    if cpu_share > plan.max_cpu_share:
        return NO_VERDICT, (
            f"the generator used {cpu_share:.0%} of a core, and may have read answers late: lower --rate, or "
            "split the load over several generators"
        )
    said = f"{attainment:.2%} of requests answered inside {plan.deadline_ms:g} ms"
    if attainment >= plan.objective:
        return PASS, f"{said}; the objective is {plan.objective:.2%}"
    return FAIL, f"{said}; the objective of {plan.objective:.2%} is missed"
