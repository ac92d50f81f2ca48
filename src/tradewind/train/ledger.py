"""The step ledger: every nanosecond of this process's wall time is in exactly one bucket."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

COMPUTE = "compute"
COMMUNICATION = "communication"
"""Time the training thread waited for gradients to be exchanged; what overlapped compute is compute."""
DATA_WAIT = "data_wait"
CHECKPOINT_STALL = "checkpoint_stall"
RESTORE = "restore"
STARTUP = "startup"
"""From the start of the process to the first batch asked for, restore apart."""
OTHER = "other"

BUCKETS = (COMPUTE, COMMUNICATION, DATA_WAIT, CHECKPOINT_STALL, RESTORE, STARTUP, OTHER)


_begun_ns: int | None = None
"""When the process began its present attempt, where that is not when the process was made."""


class Ledger:
    """One bucket is open at any time, so the buckets sum to the wall time by construction."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns, age_ns: int = 0) -> None:
        """`age_ns`: how long the process had lived already; it was startup."""
        self._clock = clock
        self._spent = dict.fromkeys(BUCKETS, 0) | {STARTUP: age_ns}
        self._show: Callable[[str], None] | None = None
        self._open = STARTUP
        self._since = clock()

    @property
    def bucket(self) -> str:
        """The bucket that time goes to now."""
        return self._open

    def switch(self, bucket: str) -> None:
        """From now on time goes to this bucket."""
        assert bucket in self._spent, bucket
        now = self._clock()
        self._spent[self._open] += now - self._since
        self._open, self._since = bucket, now
        if self._show is not None:
            self._show(bucket)

    def show(self, on: Callable[[str], None]) -> None:
        """Tell `on` the open bucket, now and at every switch."""
        self._show = on
        on(self._open)

    @contextmanager
    def within(self, bucket: str) -> Iterator[None]:
        """Time inside the block goes to this bucket, and afterwards to the one before."""
        before = self._open
        self.switch(bucket)
        try:
            yield
        finally:
            self.switch(before)

    def spent_ns(self) -> dict[str, int]:
        """Nanoseconds by bucket until now."""
        self.switch(self._open)
        return dict(self._spent)

    def entry(self) -> dict[str, object]:
        """The journal's form: seconds by bucket, and their sum."""
        seconds = {bucket: spent / 1e9 for bucket, spent in self.spent_ns().items()}
        return {"buckets": seconds, "wall_s": math.fsum(seconds.values())}


@functools.cache
def process_ledger() -> Ledger:
    """This process's one ledger, begun when the process was; several loops in turn share it."""
    return Ledger(age_ns=process_age_ns() if _begun_ns is None else time.monotonic_ns() - _begun_ns)


def begin_again() -> None:
    """Count from now on in a new ledger: the process was taken into another attempt."""
    global _begun_ns
    _begun_ns = time.monotonic_ns()
    process_ledger.cache_clear()


def process_age_ns() -> int:
    """How long this process has lived, to a hundredth of a second; 0 where the system does not say."""
    try:
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started_ticks * 10_000_000)
