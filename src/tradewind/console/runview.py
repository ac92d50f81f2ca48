"""The report's sections about training: failures and recovery, the ledger, the curves."""

from collections.abc import Sequence

from tradewind.console.charts import (
    Lane,
    LineChart,
    Mark,
    Pin,
    Series,
    Span,
    line_chart,
    stacked_bar,
    timeline,
)
from tradewind.console.markup import Html, join, table, tag
from tradewind.console.scales import number, seconds
from tradewind.console.view import Failure, RunView

COLOURS = {
    "compute": "c-compute",
    "communication": "c-communication",
    "data_wait": "c-data",
    "checkpoint_stall": "c-checkpoint",
    "restore": "c-restore",
    "recompute": "c-recompute",
    "startup": "c-startup",
    "detection": "c-detection",
    "restart": "c-restart",
    "pending": "c-pending",
    "preempted": "c-pending",
    "suspended": "c-pending",
    "evicted": "c-pending",
    "other": "c-other",
}
MEANINGS = {
    "compute": "forward, backward, optimizer",
    "communication": "waiting for other ranks, not hidden by compute",
    "data_wait": "waiting for the next batch",
    "checkpoint_stall": "training held up by a checkpoint",
    "restore": "reading a checkpoint back",
    "recompute": "repeating steps lost in a failure",
    "startup": "from process start to the first step",
    "detection": "from the failure until it was noticed",
    "restart": "stopping survivors, starting replacements",
    "pending": "from submission to the first attempt, or waiting to be started again",
    "preempted": "hosts given to a run of higher priority, until they were there again",
    "suspended": "put aside by a queue, until its hosts were there again",
    "evicted": "hosts taken by the cluster, until they were there again",
    "other": "not attributed to any of these",
}
_STATES = {"succeeded": "c-compute", "failed": "c-restart", "running": "c-communication"}
_MOST_RANKS = 12


def section(title: str, lead: str, *children: Html) -> Html:
    """A titled card."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead"), *children)


def plot(*children: Html) -> Html:
    """A chart that scrolls sideways where it does not fit."""
    return tag("div", *children, class_="plot")


def ledger_section(view: RunView) -> Html:
    """Where the wall time went: a stacked bar, and the same seconds as a table with their sum."""
    total = sum(view.ledger.values())
    if total <= 0:
        return section("Where the time went", "No ledger: the run has no attempt yet.")
    shown = {name: value for name, value in view.ledger.items() if value >= 5e-4}
    rows: list[list[str | None]] = [
        [
            join(tag("span", class_=f"swatch {COLOURS.get(name, 'c-other')}"), name.replace("_", " ")),
            MEANINGS.get(name, ""),
            f"{value:.2f}",
            f"{value / total:.1%}",
        ]
        for name, value in shown.items()
    ]
    rows.append(
        [tag("b", "sum"), f"wall time {view.wall_s:.2f} s", tag("b", f"{total:.2f}"), tag("b", "100%")]
    )
    lead = "Every second of wall time has a name; the parts add up to the whole. Mean over ranks."
    bar = plot(stacked_bar("Wall time by bucket", shown, COLOURS))
    return section(
        "Where the time went", lead, bar, table(["bucket", "what it is", "seconds", "share"], rows, 2)
    )


def failure_section(view: RunView) -> Html:
    """The run on a time line: attempts, workers, checkpoints, failures and recoveries."""
    if not view.attempts:
        return section("Timeline", "No attempt has started yet.")
    failures = view.failures
    bands = [
        Span(
            begin=f.t_s,
            end=f.t_s + f.recovered_s,
            colour="c-bad",
            label=f"recovered in {seconds(f.recovered_s)}",
            detail=f"{f.recovered_s:.2f} s from the failure to step {f.step}",
        )
        for f in failures
        if f.recovered_s is not None
    ]
    lanes = [_attempt_lane(view), *_rank_lanes(view, failures), *_checkpoint_lane(view)]
    chart = plot(timeline("Attempts, workers, failures and recoveries", lanes, view.wall_s, bands))
    lead = "From submission to the end, in seconds. Each failure is marked where it was first seen."
    if not failures:
        lead += " No worker was lost."
    return section("Timeline: failures and recovery", lead, chart, *_failure_table(failures))


def _failure_table(failures: Sequence[Failure]) -> list[Html]:
    if not failures:
        return []
    rows: list[list[str | None]] = [
        [
            f"{f.t_s:.2f}",
            str(f.attempt),
            "-" if f.rank is None else str(f.rank),
            f.kind,
            "not recovered" if f.recovered_s is None else f"{f.recovered_s:.2f}",
            "-" if f.step is None else f"{f.step:,}",
        ]
        for f in failures
    ]
    header = ["at (s)", "attempt", "rank", "class", "to next step (s)", "next step"]
    first = next((f.text for f in failures if f.text), "")
    return [table(header, rows, 4), tag("pre", first) if first else Html()]


def _attempt_lane(view: RunView) -> Lane:
    spans = []
    for attempt in view.attempts:
        begin = (attempt.started_s or view.begin_s) - view.begin_s
        end = (attempt.ended_s or view.end_s) - view.begin_s
        label = f"attempt {attempt.index}: {attempt.state}"
        detail = f"{label}, {end - begin:.2f} s" + (f"; {attempt.reason}" if attempt.reason else "")
        colour = _STATES.get(attempt.state, "c-startup")
        spans.append(Span(begin=begin, end=end, colour=colour, label=label, detail=detail))
    return Lane(name="attempts", spans=spans)


def _rank_lanes(view: RunView, failures: Sequence[Failure]) -> list[Lane]:
    ranks = sorted({e.rank for e in view.events if e.rank is not None})
    failed = [f.rank for f in failures if f.rank is not None]
    shown = sorted({*failed[:_MOST_RANKS], *ranks[: max(_MOST_RANKS - len(set(failed)), 1)]})
    return [
        Lane(name=f"rank {rank}", spans=_alive(view, rank), pins=_fatal(failures, rank)) for rank in shown
    ]


def _alive(view: RunView, rank: int) -> list[Span]:
    spans = []
    for attempt in view.attempts:
        mine = [e for e in view.events if e.rank == rank and e.attempt == attempt.index]
        begin = min((e.t_s for e in mine if e.kind in ("worker_started", "start")), default=None)
        if begin is None:
            continue
        ends = [e.t_s for e in mine if e.kind == "worker_exit"]
        end = max(ends) if ends else (attempt.ended_s or view.end_s)
        step = min((e.t_s for e in mine if e.kind == "step"), default=end)
        step = min(max(step, begin), end)
        said = f"rank {rank}, attempt {attempt.index}"
        ready = Span(
            begin=begin - view.begin_s,
            end=step - view.begin_s,
            colour="c-startup",
            detail=f"{said}: starting, {step - begin:.2f} s",
        )
        steps = Span(
            begin=step - view.begin_s,
            end=end - view.begin_s,
            colour="c-communication",
            label="training",
            detail=f"{said}: training, {end - step:.2f} s",
        )
        spans += [ready, steps]
    return spans


def _fatal(failures: Sequence[Failure], rank: int) -> list[Pin]:
    return [
        Pin(at=f.t_s, shape="cross", colour="c-bad", label=f.kind, detail=f"{f.kind}: {f.text[:300]}")
        for f in failures
        if f.rank == rank
    ]


def _checkpoint_lane(view: RunView) -> list[Lane]:
    saved: dict[tuple[int, object], float] = {}
    for event in view.events:
        if event.kind == "checkpoint":
            saved.setdefault((event.attempt, event.data.get("step")), event.t_s - view.begin_s)
    if not saved:
        return []
    pins = [
        Pin(at=at, shape="tick", colour="c-checkpoint", detail=f"checkpoint at step {step}, {at:.2f} s")
        for (_, step), at in saved.items()
    ]
    return [Lane(name="checkpoints", pins=pins)]


def curves_section(view: RunView) -> Html:
    """One chart per metric, and a table of where each began, went and ended."""
    if not view.curves:
        return section("Curves", "The run logged no metric.")
    resumed = _resume_marks(view)
    names = sorted(view.curves, key=lambda name: ("loss" not in name.lower(), name))
    drawn = [name for name in names if len(view.curves[name]) > 1]
    charts = [plot(tag("h3", name), _curve(name, view, resumed)) for name in drawn]
    rows: list[list[str | None]] = [_curve_row(name, view.curves[name]) for name in names]
    header = ["metric", "points", "first", "last", "lowest", "highest", "last step"]
    lead = "As logged by the lowest rank. Dashed: the step from which training resumed after a failure."
    return section("Curves", lead, tag("div", *charts, class_="pair"), table(header, rows))


def _curve(name: str, view: RunView, resumed: list[Mark]) -> Html:
    points = view.curves[name]
    inside = [mark for mark in resumed if points[0][0] <= mark.at <= points[-1][0]]
    series = Series(
        name=name, points=points, colour="c-1" if "loss" in name.lower() else "c-2", dots=len(points) < 25
    )
    return line_chart(LineChart(title=name, series=[series], x_label="step", down=inside))


def _curve_row(name: str, points: list[tuple[float, float]]) -> list[str | None]:
    values = [value for _, value in points]
    return [
        name,
        f"{len(points):,}",
        number(values[0]),
        number(values[-1]),
        number(min(values)),
        number(max(values)),
        f"{points[-1][0]:,.0f}",
    ]


def _resume_marks(view: RunView) -> list[Mark]:
    steps = {
        int(e.data["step"]) for e in view.events if e.kind == "resume" and e.data.get("step") is not None
    }
    return [Mark(at=step, label=f"resumed at {step:,}") for step in sorted(steps)]
