"""The histogram keeps its stated precision whatever it is fed and however it is cut."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.scale.histogram import Histogram

values_ms = st.lists(st.floats(min_value=0, max_value=1e7), min_size=1, max_size=200)


def exact(values: list[float], q: float) -> float:
    """The smallest value that at least a share `q` of `values` do not exceed."""
    ordered = sorted(values)
    rank = next(i for i in range(1, len(ordered) + 1) if i / len(ordered) >= q or i == len(ordered))
    return ordered[rank - 1]


@given(values_ms, st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_quantile_is_never_below_and_within_precision_above(values: list[float], q: float) -> None:
    """Every quantile lies in [exact, exact * (1 + precision) + 1 us]."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    want = exact(values, q)
    assert want <= histogram.quantile(q) * (1 + 1e-12)
    assert histogram.quantile(q) <= want * (1 + histogram.precision) + 0.002


@given(values_ms, values_ms)
def test_merging_is_recording_everything_in_one(left: list[float], right: list[float]) -> None:
    """A merge has the same buckets as one histogram that saw both."""
    parts = []
    for values in (left, right, [*left, *right]):
        parts.append(Histogram())
        for value in values:
            parts[-1].record(value)
    parts[0].merge(parts[1])
    assert list(parts[0].bins()) == list(parts[2].bins())
    assert parts[0].count == parts[2].count
    assert parts[0].max_ms == parts[2].max_ms


@given(values_ms)
def test_a_stored_histogram_reads_back_the_same(values: list[float]) -> None:
    """`from_dict(to_dict())` keeps every count."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    again = Histogram.from_dict(histogram.to_dict())
    assert again.to_dict() == histogram.to_dict()
    assert again.quantile(0.5) == histogram.quantile(0.5)


def test_buckets_tile_the_line() -> None:
    """Bucket tops rise without gap or overlap across the linear and the doubling part."""
    histogram = Histogram(bits=3)
    tops = [histogram._top(index) * 1000 for index in range(200)]
    assert tops[:17] == [*range(16), 17]
    assert all(before < after for before, after in itertools.pairwise(tops))
    rng = random.Random(7)
    for units in [rng.randrange(1 << 20) for _ in range(2000)]:
        one = Histogram(bits=3)
        one.record(units / 1000)
        (top, count), *rest = one.bins()
        assert (count, rest) == (1, [])
        assert round(top * 1000) >= units
        assert round(top * 1000) <= units * (1 + one.precision) + 1


def test_different_precisions_do_not_merge() -> None:
    """Merging histograms whose buckets differ is refused."""
    with pytest.raises(ValueError, match="cannot merge"):
        Histogram(8).merge(Histogram(5))


def test_an_empty_histogram_has_zero_quantiles() -> None:
    """No value recorded means 0, not a crash."""
    assert Histogram().quantile(0.99) == 0
    assert Histogram().mean_ms == 0
    assert Histogram().share_within(1) == 1
