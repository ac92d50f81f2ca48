"""How long after a change of load goodput is steady again."""

from collections.abc import Sequence

SHARE = 0.95
"""Of the steady goodput, or of the steady share of requests in time, that counts as settled."""
WINDOW_S, STEP_S = 0.25, 0.05


def settle_s(due_s: Sequence[float], good: Sequence[bool], begin_s: float, end_s: float) -> float | None:
    """Seconds from `begin_s` to the first 250 ms from which on goodput is steady, for two windows in a row.

    `due_s` are rising due instants, `good` whether each was answered in time. Steady is what the second half of
    the phase reached. None when there is no such window, or nothing in the second half to compare with.
    """
    counts = _steps(due_s, good, begin_s, end_s)
    half = counts[len(counts) // 2 :]
    offered, in_time = sum(all_ for all_, _ in half), sum(good_ for _, good_ in half)
    if not in_time:
        return None
    width = round(WINDOW_S / STEP_S)
    rate, share = in_time / len(half) * width, in_time / offered
    settled = [
        _settled(counts[at : at + width], rate, share) for at in range(max(len(counts) - width + 1, 0))
    ]
    for at in range(len(settled) - width):
        if settled[at] and settled[at + width]:
            return at * STEP_S
    return None


def _steps(
    due_s: Sequence[float], good: Sequence[bool], begin_s: float, end_s: float
) -> list[tuple[int, int]]:
    counts = [[0, 0] for _ in range(max(int((end_s - begin_s) / STEP_S + 1e-9), 1))]
    for at, in_time in zip(due_s, good, strict=True):
        step = int((at - begin_s) / STEP_S)
        if at >= begin_s and step < len(counts):
            counts[step][0] += 1
            counts[step][1] += in_time
    return [(offered, in_time) for offered, in_time in counts]


def _settled(steps: Sequence[tuple[int, int]], rate: float, share: float) -> bool:
    """Enough answers in time: for what the phase reaches, or for what was asked just then."""
    offered, in_time = sum(step[0] for step in steps), sum(step[1] for step in steps)
    return in_time >= SHARE * rate or (offered > 0 and in_time / offered >= SHARE * share)
