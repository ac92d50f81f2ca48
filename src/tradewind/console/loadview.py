"""The report's section about serving: latency and goodput against offered load."""

import math
from collections.abc import Sequence

from tradewind.console.charts import LineChart, Mark, Rows, Series, line_chart, share_rows
from tradewind.console.markup import Html, table, tag
from tradewind.console.runview import plot, section
from tradewind.console.scales import number
from tradewind.scale.histogram import Histogram
from tradewind.scale.outcome import NO_VERDICT, LoadResult, Slice

_NINES = tuple((-math.log10(1 - q / 100), f"{q:g}%") for q in (0, 50, 90, 99, 99.9, 99.99))
_TONES = {"pass": "good", "fail": "bad", NO_VERDICT: "warn"}


def load_section(loads: Sequence[LoadResult]) -> Html:
    """Latency and goodput against offered load, and the figures of every level."""
    if not loads:
        return Html()
    deadline = f"{loads[-1].deadline_ms:g} ms"
    lead = (
        "Open loop: requests leave when they are due, and latency counts from that instant, so a stall is "
        "charged to everyone who waited. Goodput is what was answered inside the deadline."
    )
    if any(load.verdict == NO_VERDICT for load in loads):
        lead += " Hollow points have no verdict: the generator could not keep its own schedule."
    charts = tag(
        "div",
        plot(tag("h3", "Latency"), _latency(loads)),
        plot(tag("h3", f"Goodput inside {deadline}"), _goodput(loads)),
        plot(tag("h3", "Latency by percentile"), _distribution(loads)),
        plot(tag("h3", "What became of the requests"), _outcomes(loads)),
        class_="pair",
    )
    shaped = [_over_time(load) for load in loads if load.timeline]
    return section("Under load", lead, charts, *shaped, _table(loads), *(_slices(load) for load in loads))


def _over_time(load: LoadResult) -> Html:
    """Offered, answered in time and refused over a shaped run, and its tail latency, with the phases marked."""
    marks = [Mark(at=phase.begin_s, label=_phase_label(phase), colour="c-soft") for phase in load.phases[1:]]

    def line(name: str, colour: str, values: Sequence[float], dashed: bool = False) -> Series:
        points = [(moment.begin_s, value) for moment, value in zip(load.timeline, values, strict=True)]
        return Series(name=name, points=points, colour=colour, dashed=dashed)

    widths = [moment.end_s - moment.begin_s for moment in load.timeline]
    moments = list(zip(load.timeline, widths, strict=True))
    rates = LineChart(
        title="Goodput over time",
        series=[
            line("offered", "c-soft", [moment.offered / width for moment, width in moments], dashed=True),
            line("refused", "c-3", [moment.refused / width for moment, width in moments]),
            line("goodput", "c-1", [moment.goodput_per_s for moment in load.timeline]),
        ],
        x_label="seconds",
        y_label="requests per second",
        zero_y=True,
        down=marks,
    )
    latency = LineChart(
        title="Latency over time",
        series=[
            line("p50", "c-1", [moment.p50_ms or math.nan for moment in load.timeline]),
            line("p99", "c-4", [moment.p99_ms or math.nan for moment in load.timeline]),
        ],
        x_label="seconds",
        y_label="ms",
        log_y=True,
        across=_slos([load]),
        down=marks,
    )
    name = f"{load.shape}, {_name(load)}" + (f" to {load.peak:g} times that" if load.peak else "")
    return tag(
        "div",
        plot(tag("h3", f"Over time: {name}"), line_chart(rates)),
        plot(tag("h3", "Latency over time"), line_chart(latency)),
        class_="pair",
    )


def _phase_label(phase: Slice) -> str:
    return phase.name if phase.settle_s is None else f"{phase.name}: steady after {phase.settle_s:.2f} s"


def _slices(load: LoadResult) -> Html:
    """Classes, phases and endpoints of one level, a row each."""
    slices = [*load.classes, *load.phases, *load.endpoints]
    if not slices:
        return Html()
    header = [
        "part",
        "offered",
        "goodput/s",
        "in time",
        "refused",
        "errors",
        "p50 ms",
        "p99 ms",
        "steady after",
    ]
    rows: list[list[str | None]] = [
        [
            one.name,
            f"{one.offered:,}",
            number(one.goodput_per_s),
            f"{one.attainment:.2%}",
            f"{one.refused:,}",
            f"{one.errors:,}",
            number(one.p50_ms),
            number(one.p99_ms),
            "" if one.settle_s is None else f"{one.settle_s:.2f} s",
        ]
        for one in slices
    ]
    return tag("div", tag("h3", f"Parts of {_name(load)}"), table(header, rows))


def _hollow(loads: Sequence[LoadResult]) -> frozenset[int]:
    return frozenset(at for at, load in enumerate(loads) if load.verdict == NO_VERDICT)


def _series(name: str, colour: str, loads: Sequence[LoadResult], values: Sequence[float]) -> Series:
    points = [(load.offered_per_s, value) for load, value in zip(loads, values, strict=True)]
    return Series(name=name, points=points, colour=colour, dots=True, hollow=_hollow(loads))


def _latency(loads: Sequence[LoadResult]) -> Html:
    series = [
        _series("p50", "c-1", loads, [load.p50_ms for load in loads]),
        _series("p90", "c-2", loads, [load.p90_ms for load in loads]),
        _series("p99", "c-4", loads, [load.p99_ms for load in loads]),
        _series("p99.9", "c-5", loads, [load.p999_ms for load in loads]),
    ]
    chart = LineChart(
        title="Latency percentiles against offered load",
        series=series,
        x_label="offered requests per second",
        y_label="ms",
        log_y=True,
        zero_x=True,
        across=_slos(loads),
    )
    return line_chart(chart)


def _goodput(loads: Sequence[LoadResult]) -> Html:
    offered = [load.offered_per_s for load in loads]
    ideal = Series(
        name="offered", points=[(0.0, 0.0), (max(offered), max(offered))], colour="c-soft", dashed=True
    )
    series = [
        ideal,
        _series("refused", "c-3", loads, [load.refused / load.duration_s for load in loads]),
        _series("goodput", "c-1", loads, [load.goodput_per_s for load in loads]),
    ]
    chart = LineChart(
        title="Goodput against offered load",
        series=series,
        x_label="offered requests per second",
        y_label="requests per second",
        zero_x=True,
        zero_y=True,
    )
    return line_chart(chart)


def _name(load: LoadResult) -> str:
    return f"{load.multiple:g}x" if load.multiple else f"{load.rate:g}/s"


def _distribution(loads: Sequence[LoadResult]) -> Html:
    """The tail of every level; each further nine takes the same room."""
    colours = ("c-1", "c-2", "c-4", "c-5", "c-6", "c-3")
    series = []
    for at, load in enumerate(one for one in loads if one.histogram):
        histogram = Histogram.from_dict(load.histogram)
        most = math.log10(max(histogram.count, 10))
        marks = [step / 20 for step in range(math.floor(min(most, 4.0) * 20) + 1)]
        points = [(mark, histogram.quantile(1 - 10**-mark)) for mark in marks]
        series.append(Series(name=_name(load), points=points, colour=colours[at % len(colours)]))
    chart = LineChart(
        title="Latency by percentile, one line a level",
        series=series,
        x_label="percentile of answered requests",
        y_label="ms",
        log_y=True,
        x_ticks=_NINES,
        across=_slos(loads),
    )
    return line_chart(chart)


def _outcomes(loads: Sequence[LoadResult]) -> Html:
    """Per level, the shares in time, late, refused and failed."""
    parts = {
        _name(load): {
            "in time": load.in_deadline,
            "late": load.ok - load.in_deadline,
            "refused": load.refused,
            "error": load.errors,
        }
        for load in loads
    }
    colours = {"in time": "c-1", "late": "c-6", "refused": "c-3", "error": "c-bad"}
    return share_rows(Rows(title="What became of the requests, by level", rows=parts, colours=colours))


def _slos(loads: Sequence[LoadResult]) -> list[Mark]:
    return [Mark(at=ms, label=f"SLO {ms:g} ms") for ms in sorted({load.deadline_ms for load in loads})]


def _table(loads: Sequence[LoadResult]) -> Html:
    header = [
        "load", "offered/s", "goodput/s", "in time", "refused", "errors", "p50 ms", "p90 ms", "p99 ms",
        "p99.9 ms", "own lag p99", "verdict",
    ]  # fmt: skip
    rows: list[list[str | None]] = [
        [
            _name(load),
            number(load.offered_per_s),
            number(load.goodput_per_s),
            f"{load.attainment:.2%}",
            f"{load.refused:,}",
            f"{load.errors:,}",
            number(load.p50_ms),
            number(load.p90_ms),
            number(load.p99_ms),
            number(load.p999_ms),
            f"{load.schedule_lag_p99_ms:.2f} ms",
            tag("b", load.verdict, class_=_TONES.get(load.verdict, "warn"), title=load.why),
        ]
        for load in loads
    ]
    return table(header, rows)
