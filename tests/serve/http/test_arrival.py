"""When a request came in: by the loop's clock where that says enough, else by the kernel's."""

import socket
import time

from tradewind.serve.http.arrival import Arrivals

A, B = socket.socket(), socket.socket()
A.close(), B.close()  # only to be told apart


class Loop:
    """A loop whose clock stands where it is put."""

    def __init__(self, turn_s: float) -> None:
        self.turn_s = turn_s

    def time(self) -> float:
        return self.turn_s


class Kernel:
    """Says of every socket that what came waited for 50 ms there; `asked` has the sockets."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, sock: object) -> float:
        self.asked.append(sock)
        return 0.05


def test_the_kernel_is_asked_only_where_the_loop_has_not_just_looked():
    """Asked at first, and of a socket that was not read all along; not when the loop looked a moment ago."""
    kernel, loop = Kernel(), Loop(time.monotonic())
    arrivals = Arrivals(kernel, tick_s=60.0)
    first_s = arrivals.arrived_s(A, loop, watched=True)
    assert kernel.asked == [A]
    assert first_s < loop.turn_s
    loop.turn_s = time.monotonic()
    assert arrivals.arrived_s(A, loop, watched=True) == loop.turn_s
    assert kernel.asked == [A]
    arrivals.arrived_s(B, loop, watched=False)
    assert kernel.asked == [A, B]


def test_the_kernel_is_asked_where_the_loop_looked_long_ago():
    kernel, loop = Kernel(), Loop(time.monotonic())
    arrivals = Arrivals(kernel, tick_s=0.0)
    arrivals.arrived_s(A, loop, watched=True)
    loop.turn_s = time.monotonic()
    arrivals.arrived_s(A, loop, watched=True)
    assert kernel.asked == [A, A]


def test_a_clock_that_runs_says_nothing_of_when_the_loop_looked():
    """As that of asyncio's own loop does."""
    kernel, loop = Kernel(), Loop(time.monotonic() + 60.0)
    arrivals = Arrivals(kernel, tick_s=60.0)
    arrivals.arrived_s(A, loop, watched=True)
    loop.turn_s += 60.0
    arrivals.arrived_s(A, loop, watched=True)
    assert kernel.asked == [A, A]
