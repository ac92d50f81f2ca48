"""Axes are marked with round numbers and thinning keeps what can be seen."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.console.scales import (
    Axis,
    clock,
    linear_axis,
    log_ticks,
    number,
    percent,
    plural,
    seconds,
    thin,
    ticks,
    time_ticks,
)

finite = st.floats(min_value=-1e9, max_value=1e9)


@given(finite, st.floats(min_value=1e-6, max_value=1e9))
def test_ticks_lie_inside_and_are_few(low: float, width: float) -> None:
    """Ticks rise, stay inside the axis and number between two and eleven."""
    high = low + width
    if high - low < abs(low) * 1e-9:
        return
    found = ticks(low, high, 5)
    assert found == sorted(found)
    assert 2 <= len(found) <= 11
    assert all(low - width * 1e-6 <= tick <= high + width * 1e-6 for tick in found)


def test_ticks_are_round() -> None:
    """Tables of known axes."""
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 62, 10) == [0, 10, 20, 30, 40, 50, 60]
    assert log_ticks(4, 120) == [5, 10, 20, 50, 100]
    assert time_ticks(3600 * 5)[:3] == [0, 1800, 3600]
    assert len(time_ticks(86400 * 300)) <= 11


@given(st.lists(finite, min_size=1, max_size=30), finite)
def test_an_axis_never_leaves_its_pixels(values: list[float], value: float) -> None:
    """Every value is drawn inside, also those beyond the axis."""
    axis = linear_axis(values, 50, 500)
    assert 50 <= axis(value) <= 500
    assert Axis(1, 1000, 0, 300, log=True)(10) == pytest.approx(100)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000))
def test_thinning_keeps_the_extremes_and_the_ends(values: list[float]) -> None:
    """At most 400 points remain, with the lowest, the highest, the first and the last, in order."""
    points = [(float(at), value) for at, value in enumerate(values)]
    kept = thin(points)
    assert len(kept) <= 400
    assert kept == sorted(kept)
    assert {points[0], points[-1]} <= set(kept)
    assert min(v for _, v in kept) == min(values)
    assert max(v for _, v in kept) == max(values)


def test_figures_as_people_read_them() -> None:
    """Numbers, lengths of time, instants, shares and counts."""
    assert [number(v) for v in (0, 0.5, 12.345, 12345, 2.5e6, 1e-5, math.nan)] == [
        "0", "0.5", "12.35", "12.3k", "2.5M", "1.00e-05", "-",
    ]  # fmt: skip
    assert [seconds(v) for v in (0.25, 3.14159, 150, 7260)] == ["250 ms", "3.1 s", "2 min 30 s", "2 h 01 min"]
    assert [clock(v) for v in (0, 45, 90, 7260)] == ["0", "45 s", "1:30", "2:01:00"]
    assert [percent(v) for v in (0, 0.5, 0.99999, 1)] == ["0%", "50.0%", "99.9%", "100%"]
    assert [plural(n, "step") for n in (1, 2)] == ["1 step", "2 steps"]
