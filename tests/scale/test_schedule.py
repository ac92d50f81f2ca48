"""Arrivals are fixed in advance, seeded and shaped as they claim."""

import itertools
import math
import statistics

import pytest

from tradewind.errors import SpecError
from tradewind.scale.schedule import constant, poisson


def test_the_seed_fixes_every_arrival() -> None:
    """Equal seeds give equal arrivals and another seed gives others."""
    assert poisson(300, 5, seed=3) == poisson(300, 5, seed=3)
    assert poisson(300, 5, seed=3) != poisson(300, 5, seed=4)


def test_poisson_gaps_are_exponential_at_the_rate() -> None:
    """Count, mean gap, spread and the share of short gaps match the exponential law."""
    arrivals = poisson(1000, 50, seed=1)
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    assert abs(len(arrivals) - 50_000) < 5 * math.sqrt(50_000)
    assert statistics.mean(gaps) == pytest.approx(1e-3, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1e-3, rel=0.03)
    assert sum(gap < 1e-3 for gap in gaps) / len(gaps) == pytest.approx(1 - math.exp(-1), abs=0.01)


def test_arrivals_rise_inside_the_window() -> None:
    """Arrivals are sorted and none lies at or after the end."""
    for arrivals in (poisson(200, 2), constant(200, 2)):
        assert list(arrivals) == sorted(arrivals)
        assert arrivals[0] >= 0
        assert arrivals[-1] < 2
    assert len(constant(200, 2)) == 400


@pytest.mark.parametrize(("rate", "duration_s"), [(0, 1), (-1, 1), (1, 0), (math.inf, 1), (math.nan, 1)])
def test_a_rate_that_means_nothing_is_refused(rate: float, duration_s: float) -> None:
    """Zero, negative, infinite and NaN ask for no schedule."""
    with pytest.raises(SpecError, match="must be above zero"):
        poisson(rate, duration_s)
