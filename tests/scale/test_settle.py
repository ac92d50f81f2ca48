"""When goodput is steady again, on made-up requests."""

import pytest

from tradewind.scale.settle import settle_s


def requests(
    rate: int, begin: float, end: float, bad_from: float = 0, bad_to: float = 0
) -> tuple[list[float], list[bool]]:
    due = [begin + i / rate for i in range(int((end - begin) * rate))]
    return due, [not bad_from <= at < bad_to for at in due]


@pytest.mark.parametrize("dip_s", [0.0, 0.3, 1.1])
def test_the_dip_is_what_is_measured(dip_s: float) -> None:
    """Nothing in time for so long, then everything: steady within 50 ms of the dip's end."""
    due, good = requests(400, 2.0, 8.0, 2.0, 2.0 + dip_s)
    assert settle_s(due, good, 2.0, 8.0) == pytest.approx(dip_s, abs=0.05)


def test_a_lower_plateau_is_steady_too() -> None:
    """Where half is refused for good, steady is that half."""
    due, _ = requests(400, 0.0, 4.0)
    good = [number % 2 == 0 and at >= 0.5 for number, at in enumerate(due)]
    assert settle_s(due, good, 0.0, 4.0) == pytest.approx(0.5, abs=0.05)


def test_what_never_works_never_settles() -> None:
    """No goodput in the second half, or a phase too short to judge: None."""
    due, good = requests(400, 0.0, 4.0, 0.0, 4.0)
    assert settle_s(due, good, 0.0, 4.0) is None
    assert settle_s(due, good, 0.0, 0.1) is None
    assert settle_s([], [], 0.0, 4.0) is None


def test_one_good_window_between_bad_ones_is_not_steady() -> None:
    """A flicker of 250 ms in a dip does not count."""
    due, _ = requests(400, 0.0, 6.0)
    good = [at >= 2.0 or 0.5 <= at < 0.75 for at in due]
    assert settle_s(due, good, 0.0, 6.0) == pytest.approx(2.0, abs=0.05)
