"""When a request came in: by the loop's clock where that says enough, else by the kernel's."""

import time

import pytest

from tradewind.serve.http import arrival
from tradewind.serve.http.arrival import Arrivals


class Loop:
    """A loop whose clock stands where it is put."""

    def __init__(self, turn_s: float) -> None:
        self.turn_s = turn_s

    def time(self) -> float:
        return self.turn_s


@pytest.fixture
def asked(monkeypatch):
    """The sockets that the kernel was asked of; each waited for 50 ms there."""
    sockets = []

    def in_kernel_s(sock):
        sockets.append(sock)
        return 0.05

    monkeypatch.setattr(arrival, "_in_kernel_s", in_kernel_s)
    monkeypatch.setattr(arrival, "_KERNEL_TICK_S", 60.0)
    return sockets


def test_the_kernel_is_asked_only_where_the_loop_has_not_just_looked(asked):
    """Asked at first, and of a socket that was not read all along; not when the loop looked a moment ago."""
    arrivals, loop = Arrivals(), Loop(time.monotonic())
    first_s = arrivals.arrived_s("a", loop, watched=True)
    assert asked == ["a"]
    assert first_s < loop.turn_s
    loop.turn_s = time.monotonic()
    assert arrivals.arrived_s("a", loop, watched=True) == loop.turn_s
    assert asked == ["a"]
    arrivals.arrived_s("b", loop, watched=False)
    assert asked == ["a", "b"]


def test_the_kernel_is_asked_where_the_loop_looked_long_ago(asked, monkeypatch):
    monkeypatch.setattr(arrival, "_KERNEL_TICK_S", 0.0)
    arrivals, loop = Arrivals(), Loop(time.monotonic())
    arrivals.arrived_s("a", loop, watched=True)
    loop.turn_s = time.monotonic()
    arrivals.arrived_s("a", loop, watched=True)
    assert asked == ["a", "a"]


def test_a_clock_that_runs_says_nothing_of_when_the_loop_looked(asked):
    """As that of asyncio's own loop does."""
    arrivals, loop = Arrivals(), Loop(time.monotonic() + 60.0)
    arrivals.arrived_s("a", loop, watched=True)
    loop.turn_s += 60.0
    arrivals.arrived_s("a", loop, watched=True)
    assert asked == ["a", "a"]
