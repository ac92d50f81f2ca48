"""Shapes are what they claim: rates per phase, fixed by the seed."""

import math

import pytest

from tradewind.errors import SpecError
from tradewind.scale.shape import SHAPES, highest, make_shape, shaped_poisson


@pytest.mark.parametrize("name", SHAPES)
def test_phases_cover_the_run_and_the_peak_is_the_highest_rate(name: str) -> None:
    """Phases follow each other from 0 to 1, knots too, and nothing is above the stated peak."""
    shape = make_shape(name, 4.0)
    assert (shape.phases[0].begin, shape.phases[-1].end) == (0, 1)
    for before, after in zip(shape.phases, shape.phases[1:], strict=False):
        assert before.end == after.begin
    assert [at for at, _ in shape.knots] == sorted(at for at, _ in shape.knots)
    assert (shape.knots[0][0], shape.knots[-1][0]) == (0, 1)
    assert highest(shape) == (1 if name == "steady" else 4.0)


def mean_rate(arrivals: list[float], begin: float, end: float) -> float:
    return sum(begin <= at < end for at in arrivals) / (end - begin)


def test_a_step_triples_the_rate_in_its_middle_third() -> None:
    """Counts per third are Poisson around rate, peak times rate, rate; the seed fixes each arrival."""
    knots = make_shape("step", 3.0).knots
    arrivals = list(shaped_poisson(200, 30, 5, knots))
    assert arrivals == sorted(arrivals) == list(shaped_poisson(200, 30, 5, knots))
    assert arrivals != list(shaped_poisson(200, 30, 6, knots))
    for begin, expected in ((0, 200), (10, 600), (20, 200)):
        assert mean_rate(arrivals, begin, begin + 10) == pytest.approx(
            expected, abs=5 * math.sqrt(expected / 10)
        )
    assert all(0 <= at < 30 for at in arrivals)


def test_a_ramp_rises_evenly() -> None:
    """The mean rate of a rising part is that of its ends, in each half of it."""
    arrivals = list(shaped_poisson(100, 100, 1, make_shape("ramp", 5.0).knots))
    for begin, end, expected in ((0, 40, 200), (40, 80, 400), (80, 100, 500)):
        assert mean_rate(arrivals, begin, end) == pytest.approx(expected, abs=5 * math.sqrt(expected / 20))


def test_an_unknown_shape_lists_the_known() -> None:
    """The error names the choices; a peak must be a number above zero."""
    with pytest.raises(SpecError, match="black-friday"):
        make_shape("wave", 2.0)
    for peak in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SpecError, match="--peak"):
            make_shape("step", peak)
