"""Charts draw what they are given, to scale."""

import json
import math
import xml.etree.ElementTree as ElementTree

import pytest

from tradewind.console.charts import (
    Lane,
    LineChart,
    Mark,
    Pin,
    Rows,
    Series,
    Span,
    line_chart,
    share_rows,
    stacked_bar,
    timeline,
)


def rects(svg: str, css: str = "fill") -> list[ElementTree.Element]:
    """The filled boxes of a chart."""
    found = ElementTree.fromstring(svg).iter("rect")
    return [rect for rect in found if rect.get("class", "").startswith(css)]


def test_the_stacked_bar_is_to_scale() -> None:
    """Widths are proportional to seconds, begin where the last ended, and fill the bar."""
    boxes = rects(stacked_bar("ledger", {"compute": 30.0, "restart": 10.0, "none": 0.0}, {}))
    assert len(boxes) == 2
    widths = [float(box.get("width", 0)) + 1.5 for box in boxes]
    assert widths[0] / widths[1] == pytest.approx(3, rel=0.01)
    assert sum(widths) == pytest.approx(1118, abs=0.1)
    assert float(boxes[1].get("x", 0)) == pytest.approx(1 + widths[0], abs=0.05)


def test_a_line_skips_what_is_not_a_number() -> None:
    """NaN and infinity leave the path and the axis finite, and hover still says what was logged."""
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)]
    svg = line_chart(LineChart(title="loss", series=[Series(name="loss", points=points)], x_label="step"))
    root = ElementTree.fromstring(svg)
    path = next(iter(root.iter("path"))).get("d", "")
    assert path.count("L") == 1
    assert "nan" not in svg.replace("nan;", "").lower().split("data-points")[0]
    hover = json.loads(root.get("data-points", ""))
    assert [row[2]["loss"] for row in hover["rows"]] == ["1", "-", "inf", "2"]


def test_one_point_and_no_point_are_drawn_without_crashing() -> None:
    """A single value shows as a dot; an empty series leaves empty axes."""
    one = line_chart(LineChart(title="a", series=[Series(name="a", points=[(5.0, 5.0)])], x_label="step"))
    assert len(list(ElementTree.fromstring(one).iter("circle"))) == 1
    none = line_chart(LineChart(title="a", series=[Series(name="a", points=[])], x_label="step", log_y=True))
    assert not list(ElementTree.fromstring(none).iter("path"))


def test_hollow_points_marks_and_labels() -> None:
    """A point without a verdict is hollow, a mark across carries its label."""
    chart = LineChart(
        title="latency",
        series=[Series(name="p99", points=[(1.0, 10.0), (2.0, 90.0)], dots=True, hollow=frozenset({1}))],
        x_label="load",
        log_y=True,
        across=[Mark(at=50, label="SLO 50 ms")],
    )
    svg = line_chart(chart)
    root = ElementTree.fromstring(svg)
    assert [("hollow" in circle.get("class", "")) for circle in root.iter("circle")] == [False, True]
    mark = next(line for line in root.iter("line") if line.get("class", "").startswith("mark"))
    dots = [float(circle.get("cy", 0)) for circle in root.iter("circle")]
    assert dots[1] < float(mark.get("y1", 0)) < dots[0]
    assert "SLO 50 ms" in svg


def test_a_timeline_places_spans_pins_and_bands() -> None:
    """Spans are proportional to their length and a band covers its seconds in every lane."""
    lanes = [
        Lane(
            name="rank 0", spans=[Span(begin=0, end=10, colour="c-1"), Span(begin=10, end=30, colour="c-1")]
        ),
        Lane(name="rank 1", pins=[Pin(at=15, shape="cross", colour="c-bad", label="killed")]),
    ]
    svg = timeline("t", lanes, 30.0, [Span(begin=15, end=18, colour="c-bad", label="recovered")])
    widths = [float(rect.get("width", 0)) for rect in rects(svg)]
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.01)
    (band,) = rects(svg, "band")
    assert float(band.get("width", 0)) == pytest.approx(widths[0] * 0.3, rel=0.01)
    pin = next(iter(ElementTree.fromstring(svg).iter("circle")))
    assert float(pin.get("cx", 0)) == pytest.approx(float(band.get("x", 0)), abs=0.05)


def test_share_rows_fill_their_bars() -> None:
    """Every row is as long as the others, whatever its total."""
    rows = Rows(title="t", rows={"1x": {"ok": 90, "late": 10}, "2x": {"ok": 5, "late": 15}}, colours={"ok": "c-1", "late": "c-2"})  # fmt: skip
    boxes = [float(rect.get("width", 0)) + 1.5 for rect in rects(share_rows(rows))]
    assert boxes[0] + boxes[1] == pytest.approx(boxes[2] + boxes[3], abs=0.1)
    assert boxes[0] / boxes[1] == pytest.approx(9, rel=0.01)
    assert boxes[3] / boxes[2] == pytest.approx(3, rel=0.01)
