"""Credits of the classes, by the clock that is passed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve.classes import Credits, Guarantee, precedence

GUARANTEE = Guarantee((0.5, 0.3, 0.1), 0.1)


def test_a_class_earns_its_share_up_to_one_window():
    """Of each worker's time."""
    empty = Credits((0.0, 0.0, 0.0), 10.0)
    assert GUARANTEE.earned(empty, 10.05).seconds == pytest.approx((0.025, 0.015, 0.005))
    assert GUARANTEE.earned(empty, 99.0).seconds == pytest.approx((0.05, 0.03, 0.01))
    assert GUARANTEE._replace(num_workers=2).earned(empty, 10.05).seconds[0] == pytest.approx(0.05)
    assert GUARANTEE.earned(empty, 9.0) == Credits((0.0, 0.0, 0.0), 9.0)


def test_a_class_pays_for_what_runs_down_to_a_window_of_debt():
    """What it used beyond that, while nobody else asked, is forgotten."""
    charged = GUARANTEE.charged(GUARANTEE.opening(0.0), (0.02, 5.0, 0.0))
    assert charged.seconds == pytest.approx((0.03, -0.1, 0.01))


def test_those_inside_their_guarantee_go_first():
    """By importance, and then the others by importance."""
    assert precedence(Credits((0.1, 0.1, 0.1), 0.0)) == [0, 1, 2]
    assert precedence(Credits((-0.1, 0.1, 0.1), 0.0)) == [1, 2, 0]
    assert precedence(Credits((0.1, 0.0, 0.1), 0.0)) == [0, 2, 1]
    assert precedence(Credits((-0.1, -0.2, -0.1), 0.0)) == [0, 1, 2]


@given(
    hundredths=st.tuples(*[st.integers(-10, 10)] * 3), passed=st.integers(0, 40), workers=st.integers(1, 3)
)
def test_the_order_stands_until_a_class_is_out_of_debt(hundredths, passed, workers):
    """Time alone changes nothing before that."""
    guarantee = GUARANTEE._replace(num_workers=workers)
    credits, now = Credits(tuple(n / 100 for n in hundredths), 10.0), 10.0 + passed / 100
    if now < guarantee.stands_until_s(credits) - 1e-9:
        assert precedence(guarantee.earned(credits, now)) == precedence(credits)


def test_debt_is_paid_off_at_the_rate_of_the_share():
    """The first to be out of debt says when; never, where there is none."""
    assert GUARANTEE.stands_until_s(Credits((0.05, -0.03, -0.03), 10.0)) == pytest.approx(10.1)
    assert GUARANTEE.stands_until_s(Credits((0.05, 0.01, 0.01), 10.0)) == float("inf")
