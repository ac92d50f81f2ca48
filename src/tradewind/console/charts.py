"""Charts as inline SVG: drawn once, styled by the page's own colours, light or dark."""

import json
import math
from collections.abc import Mapping, Sequence

import msgspec

from tradewind.console.markup import Html, join, tag
from tradewind.console.scales import (
    Axis,
    clock,
    linear_axis,
    log_axis,
    log_ticks,
    number,
    percent,
    thin,
    ticks,
    time_ticks,
)

Point = tuple[float, float]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line: its points by rising x, its colour (a CSS class `c-...`), markers at the points."""

    name: str
    points: Sequence[Point]
    colour: str = "c-1"
    dots: bool = False
    dashed: bool = False
    hollow: frozenset[int] = frozenset()
    """Indexes of points drawn hollow: measured, but without a verdict."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A straight line across the chart at one value, with its label."""

    at: float
    label: str
    colour: str = "c-bad"


class LineChart(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a line chart shows."""

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str = ""
    log_y: bool = False
    zero_y: bool = False
    zero_x: bool = False
    x_ticks: Sequence[tuple[float, str]] = ()
    """Where the x axis is marked and how; round numbers when empty."""
    across: Sequence[Mark] = ()
    """Horizontal lines, such as an SLO."""
    down: Sequence[Mark] = ()
    """Vertical lines, such as a failure."""
    width: int = 540
    height: int = 250


def line_chart(chart: LineChart) -> Html:
    """A line chart with axes, marks, a legend for several series, and values on hover."""
    headed = len(chart.series) > 1 or bool(chart.y_label)
    left, right, top, bottom = 52, chart.width - 16, 34 if headed else 8, chart.height - 40
    xs = [x for line in chart.series for x, _ in line.points]
    ys = [y for line in chart.series for _, y in line.points if math.isfinite(y)] + [
        m.at for m in chart.across
    ]
    span = (min(xs, default=0.0), max(xs, default=1.0))
    x = linear_axis(xs, left, right, zero=True) if chart.zero_x else Axis(*span, left, right)
    y = log_axis(ys, bottom, top) if chart.log_y else linear_axis(ys, bottom, top, zero=chart.zero_y)
    parts = [
        _grid(x, y, right, bottom, chart.x_ticks),
        tag(
            "text",
            chart.x_label,
            x=(left + right) / 2,
            y=chart.height - 6,
            class_="axis",
            text_anchor="middle",
        ),
        tag("text", chart.y_label, x=left - 44, y=14, class_="axis"),
        _legend(chart.series, right) if len(chart.series) > 1 else Html(),
        *(_across(mark, y, left, right) for mark in chart.across),
        *(_down(mark, x, top, bottom) for mark in chart.down),
        *(_line(line, x, y) for line in chart.series),
        tag("line", class_="cursor", y1=top, y2=bottom, x1=0, x2=0),
        tag("rect", class_="hover", x=left, y=top, width=right - left, height=bottom - top),
    ]
    return svg(chart.title, chart.width, chart.height, join(*parts), data_points=_hover(chart, x))


def svg(title: str, width: float, height: float, body: Html, **data: str) -> Html:
    """An SVG picture with its accessible name."""
    return tag(
        "svg",
        body,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=title,
        style=f"min-width:{min(width, 560) * 0.75:g}px",
        **data,
    )


def _grid(x: Axis, y: Axis, right: float, bottom: float, x_ticks: Sequence[tuple[float, str]]) -> Html:
    parts, left = [], x.start
    for value in log_ticks(y.low, y.high) if y.log else ticks(y.low, y.high, 4):
        at = y(value)
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
        parts.append(tag("text", number(value), x=left - 7, y=at + 3.5, class_="tick", text_anchor="end"))
    round_ones = [(value, number(value)) for value in ticks(x.low, x.high, 6)]
    for value, label in [tick for tick in x_ticks if x.low <= tick[0] <= x.high] or round_ones:
        parts.append(tag("text", label, x=x(value), y=bottom + 16, class_="tick", text_anchor="middle"))
    parts.append(tag("line", class_="base", x1=left, x2=right, y1=bottom, y2=bottom))
    return join(*parts)


def _legend(series: Sequence[Series], right: float) -> Html:
    parts: list[Html] = []
    at = right
    for line in reversed(series):
        at -= 6.1 * len(line.name)
        parts.append(tag("text", line.name, x=at, y=14, class_="key"))
        at -= 18
        parts.append(tag("line", x1=at, x2=at + 13, y1=10, y2=10, class_=f"line {line.colour}{_dash(line)}"))
        at -= 14
    return join(*parts)


def _dash(line: Series) -> str:
    return " dashed" if line.dashed else ""


def _line(line: Series, x: Axis, y: Axis) -> Html:
    drawn = [(x(px), y(py)) for px, py in thin(line.points) if math.isfinite(py)]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in drawn) if drawn else None
    parts = [tag("path", d=path, class_=f"line {line.colour}{_dash(line)}")] if path else []
    if line.dots or len(drawn) == 1:
        for at, (px, py) in enumerate(drawn):
            hollow = " hollow" if at in line.hollow else ""
            parts.append(tag("circle", cx=px, cy=py, r=3.6, class_=f"dot {line.colour}{hollow}"))
    return join(*parts)


def _across(mark: Mark, y: Axis, left: float, right: float) -> Html:
    at = y(mark.at)
    return join(
        tag("line", class_=f"mark {mark.colour}", x1=left, x2=right, y1=at, y2=at),
        tag("text", mark.label, x=left + 6, y=at - 5, class_=f"mark-text {mark.colour}"),
    )


def _down(mark: Mark, x: Axis, top: float, bottom: float) -> Html:
    at = x(mark.at)
    anchor = "end" if at > (x.start + x.end) / 2 else "start"
    return join(
        tag("line", class_=f"mark {mark.colour}", x1=at, x2=at, y1=top, y2=bottom),
        tag(
            "text",
            mark.label,
            x=at + (-5 if anchor == "end" else 5),
            y=top + 9,
            class_=f"mark-text {mark.colour}",
            text_anchor=anchor,
        ),
    )


def _hover(chart: LineChart, x: Axis) -> str:
    """What the page's script shows under the pointer: per x its pixel and every series' value."""
    rows: dict[float, dict[str, str]] = {}
    for line in chart.series:
        for px, py in thin(line.points):
            rows.setdefault(px, {})[line.name] = number(py)
    names = {line.name: line.colour for line in chart.series}
    table = [[round(x(px), 1), number(px), values] for px, values in sorted(rows.items())]
    return json.dumps({"x": chart.x_label, "names": names, "rows": table}, separators=(",", ":"))


def stacked_bar(title: str, buckets: Mapping[str, float], colours: Mapping[str, str]) -> Html:
    """One bar whose parts are the buckets' shares of their sum, in order."""
    width, height = 1120.0, 76.0
    total = sum(buckets.values())
    axis = Axis(0.0, total or 1.0, 1, width - 1)
    parts, at = [], 0.0
    for name, value in buckets.items():
        if value <= 0:
            continue
        begin, end = axis(at), axis(at + value)
        label = f"{name.replace('_', ' ')}: {value:.2f} s ({value / total:.1%})"
        box = tag(
            "rect", tag("title", label), x=begin, y=6, width=max(end - begin - 1.5, 0.8), height=42, rx=3,
            class_=f"fill {colours.get(name, 'c-other')}",
        )  # fmt: skip
        room = end - begin > 7.0 * len(f"{value / total:.0%}") + 10
        text = tag(
            "text", f"{value / total:.0%}", x=(begin + end) / 2, y=32, class_="in-bar", text_anchor="middle"
        )
        parts += [box, text if room else Html()]
        at += value
    for value in time_ticks(total) if total else []:
        text = tag(
            "text",
            clock(value),
            x=axis(value),
            y=66,
            class_="tick",
            text_anchor=_end(value, total),
        )
        parts.append(text)
    return svg(title, width, height, join(*parts))


def _end(value: float, total: float) -> str:
    return "start" if value <= 0 else "end" if value > total * 0.985 else "middle"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A bar on a lane, in seconds since the run began."""

    begin: float
    end: float
    colour: str
    label: str = ""
    detail: str = ""


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """An instant on a lane."""

    at: float
    shape: str
    """`cross`, `tick` or `dot`."""
    colour: str
    label: str = ""
    detail: str = ""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a timeline."""

    name: str
    spans: Sequence[Span] = ()
    pins: Sequence[Pin] = ()


def timeline(title: str, lanes: Sequence[Lane], end: float, bands: Sequence[Span] = ()) -> Html:
    """Lanes over common time; bands run through all lanes, such as a recovery."""
    width, left, top, step = 1120.0, 112.0, 30.0, 34.0
    bottom = top + step * len(lanes)
    axis = Axis(0.0, end or 1.0, left, width - 18)
    parts = [_band(band, axis, top, bottom) for band in bands]
    for row, lane in enumerate(lanes):
        y = top + step * row
        parts.append(tag("text", lane.name, x=left - 12, y=y + 21, class_="lane", text_anchor="end"))
        parts.append(tag("line", class_="grid", x1=left, x2=width - 18, y1=y + step, y2=y + step))
        parts += [_span(span, axis, y + 6) for span in lane.spans]
        parts += [_pin(pin, axis, y + 17) for pin in lane.pins]
    for value in time_ticks(axis.high):
        text = clock(value)
        parts.append(tag("text", text, x=axis(value), y=bottom + 18, class_="tick", text_anchor="middle"))
    return svg(title, width, bottom + 28, join(*parts))


def _band(band: Span, axis: Axis, top: float, bottom: float) -> Html:
    begin, end = axis(band.begin), max(axis(band.end), axis(band.begin) + 2)
    anchor = "end" if begin > 760 else "start"
    return join(
        tag(
            "rect",
            tag("title", band.detail),
            x=begin,
            y=top,
            width=end - begin,
            height=bottom - top,
            class_=f"band {band.colour}",
        ),
        tag(
            "text",
            band.label,
            x=end if anchor == "end" else begin,
            y=top - 9,
            class_=f"mark-text {band.colour}",
            text_anchor=anchor,
        ),
    )


def _span(span: Span, axis: Axis, y: float) -> Html:
    begin, end = axis(span.begin), axis(span.end)
    box = tag(
        "rect",
        tag("title", span.detail or span.label),
        x=begin,
        y=y,
        width=max(end - begin, 1.5),
        height=22,
        rx=4,
        class_=f"fill {span.colour}",
    )
    room = end - begin > 6.4 * len(span.label) + 16
    return join(box, tag("text", span.label, x=begin + 9, y=y + 15, class_="in-bar") if room else None)


def _pin(pin: Pin, axis: Axis, y: float) -> Html:
    x = axis(pin.at)
    title = tag("title", pin.detail or pin.label)
    if pin.shape == "cross":
        arms = f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"
        halo = tag("circle", title, cx=x, cy=y, r=10, class_=f"fill {pin.colour}")
        return join(halo, tag("path", d=arms, class_="cross"))
    if pin.shape == "tick":
        return tag("rect", title, x=x - 1.5, y=y - 8, width=3, height=16, rx=1.5, class_=f"fill {pin.colour}")
    return tag("circle", title, cx=x, cy=y, r=5, class_=f"fill {pin.colour}")


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Horizontal bars of equal length, each cut by its parts' shares."""

    title: str
    rows: Mapping[str, Mapping[str, float]]
    colours: Mapping[str, str]


def share_rows(chart: Rows) -> Html:
    """One bar a row, cut by shares, with a legend."""
    width, left, step = 540.0, 52.0, 40.0
    axis = Axis(0.0, 1.0, left, width - 16)
    keys = [Series(name=name, points=(), colour=colour) for name, colour in chart.colours.items()]
    parts = [_legend(keys, width - 16)]
    for row, (name, values) in enumerate(chart.rows.items()):
        y, at, total = 34 + step * row, 0.0, sum(values.values()) or 1.0
        parts.append(tag("text", name, x=left - 8, y=y + 18, class_="lane", text_anchor="end"))
        for part, value in values.items():
            begin, end = axis(at / total), axis((at + value) / total)
            at += value
            if value:
                detail = f"{name}, {part}: {value:,.0f} ({value / total:.2%})"
                label = percent(value / total) if end - begin > 44 else ""
                parts.append(_box(begin, end, y, chart.colours[part], label, detail))
    return svg(chart.title, width, 34 + step * len(chart.rows) + 4, join(*parts))


def _box(begin: float, end: float, y: float, colour: str, label: str, detail: str) -> Html:
    width = max(end - begin - 1.5, 0.8)
    return join(
        tag(
            "rect", tag("title", detail), x=begin, y=y, width=width, height=27, rx=3, class_=f"fill {colour}"
        ),
        tag("text", label, x=(begin + end) / 2, y=y + 18, class_="in-bar", text_anchor="middle"),
    )
