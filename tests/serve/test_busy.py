"""What a worker is at: when it may be idle, when something has hung, and which batch it ran when it died."""

import math

from tradewind.serve.busy import Busy, Sent

FIRST = Sent(seconds=0.040, spread_s=0.004, hang_s=5.0, jobs=3, rows=(1, 2))
SECOND = Sent(seconds=0.010, spread_s=0.001, hang_s=6.0, jobs=2, rows=(0, 2))


def test_a_worker_may_be_idle_as_soon_as_its_only_batch_may_have_ended():
    busy = Busy(FIRST, 1.0)
    assert (busy.until_s, busy.idle_s) == (1.04, 1.04 - 0.004)
    assert busy.overdue_s == 1.0 + 0.040 + 0.004
    busy.add(SECOND, 1.03)
    assert busy.idle_s == math.inf, "one is there already"
    assert busy.until_s == 1.04 + 0.010
    assert (busy.jobs, busy.hang_s) == (5, 11.0)


def test_the_second_begins_when_the_first_has_ended():
    """Which is when it was expected, or later, or sooner."""
    for ended_s in (1.02, 1.04, 1.09):
        busy = Busy(FIRST, 1.0)
        busy.add(SECOND, 1.02)
        assert busy.end(FIRST, ended_s)
        assert (busy.began_s, busy.until_s, busy.sent) == (ended_s, ended_s + 0.010, [SECOND])
        assert not busy.end(SECOND, ended_s + 0.010)


def test_what_is_sent_behind_a_batch_that_overruns_begins_now_at_the_earliest():
    busy = Busy(FIRST, 1.0)
    busy.add(SECOND, 1.5)
    assert busy.until_s == 1.51


def test_of_a_worker_that_died_the_first_batch_was_running():
    """Whichever hears of it first; nothing more is sent to it."""
    for order in ((FIRST, SECOND), (SECOND, FIRST)):
        busy = Busy(FIRST, 1.0)
        busy.add(SECOND, 1.02)
        for sent in order:
            assert busy.lose() is FIRST
            assert busy.idle_s == math.inf
            busy.end(sent, 1.03)
