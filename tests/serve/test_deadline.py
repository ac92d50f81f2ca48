"""Budgets from header, protocol parameter and SLO."""

import pytest

from tradewind.serve.deadline import MAX_BUDGET_S, budget_s
from tradewind.serve.errors import RequestError


@pytest.mark.parametrize(
    ("header", "timeout_us", "expected"),
    [
        (None, None, 0.05),
        ("20", None, 0.02),
        ("2000", None, 2.0),
        (None, 30_000, 0.03),
        (None, 0, 0.05),
        ("20", 10_000, 0.01),
        ("1e12", None, MAX_BUDGET_S),
    ],
)
def test_the_smallest_stated_budget_counts_else_the_slo(header, timeout_us, expected):
    """A client may ask for less or more time than the SLO, in either way of saying it."""
    assert budget_s(header, 50.0, timeout_us) == pytest.approx(expected)


@pytest.mark.parametrize("header", ["", "x", "-1", "0", "nan", "inf"])
def test_a_deadline_that_is_not_positive_and_finite_is_refused(header):
    """A budget that means nothing is the client's error, not the SLO by default."""
    with pytest.raises(RequestError, match="x-deadline-ms") as caught:
        budget_s(header, 50.0)
    assert caught.value.status == 400
