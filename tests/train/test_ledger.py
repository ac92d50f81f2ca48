"""The step ledger sums to wall time."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.train import ledger
from tradewind.train.ledger import BUCKETS, Ledger


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 5_000

    def __call__(self) -> int:
        return self.now_ns


@given(
    age_ns=st.integers(0, 10**12),
    moves=st.lists(st.tuples(st.sampled_from(BUCKETS), st.integers(0, 10**12), st.booleans())),
)
def test_buckets_sum_to_wall(age_ns: int, moves: list[tuple[str, int, bool]]) -> None:
    """However the buckets are switched and nested, to the nanosecond they sum to the time that passed."""
    clock = Clock()
    book = Ledger(clock, age_ns)
    expected = dict.fromkeys(BUCKETS, 0) | {ledger.STARTUP: age_ns}
    for bucket, spent_ns, nested in moves:
        if nested:
            with book.within(bucket):
                clock.now_ns += spent_ns
        else:
            book.switch(bucket)
            clock.now_ns += spent_ns
        expected[bucket] += spent_ns
    assert book.spent_ns() == expected
    assert sum(book.spent_ns().values()) == clock.now_ns - 5_000 + age_ns


def test_an_error_inside_a_block_gives_the_bucket_back() -> None:
    """An exception out of a nested block does not leave its bucket open."""
    book = Ledger(Clock())
    with pytest.raises(KeyError), book.within(ledger.RESTORE):
        raise KeyError
    assert book.bucket == ledger.STARTUP


def test_process_ledger_covers_the_life_of_this_process() -> None:
    """The process's ledger begins when the process began, before this module was imported."""
    started = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / 100
    wall_s = ledger.process_ledger().entry()["wall_s"]
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    assert isinstance(wall_s, float)
    assert wall_s == pytest.approx(age_s, abs=0.1)
    assert ledger.process_ledger() is ledger.process_ledger()
