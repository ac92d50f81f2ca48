"""Leave-one-out by time: a user's newest event is the test, the one before it validation, the rest training."""

import dataclasses

import numpy as np

from recipes.recommender.data import EventLog
from recipes.recommender.jagged import Jagged, gather, rows_of


@dataclasses.dataclass(frozen=True)
class Held:
    """One held-out event a user: predict `targets[i]` at `now[i]` from events `spans[i, 0]:spans[i, 1]`."""

    users: np.ndarray
    spans: np.ndarray
    targets: np.ndarray
    now: np.ndarray
    seen: list[np.ndarray]
    """Every item the user had met before, for the masked protocol."""


@dataclasses.dataclass(frozen=True)
class Split:
    log: EventLog
    max_history: int
    train_stop: np.ndarray
    """End of each user's training events in the log's arrays."""
    valid: Held
    test: Held


def leave_one_out(log: EventLog, max_history: int = 50) -> Split:
    """Split; users with fewer than three events only train (as in RecBole's `valid_and_test`)."""
    starts, stops = log.offsets[:-1], log.offsets[1:]
    enough = stops - starts >= 3
    users = np.flatnonzero(enough)
    return Split(
        log=log,
        max_history=max_history,
        train_stop=np.where(enough, stops - 2, stops),
        valid=_hold(log, users, stops[users] - 2, max_history),
        test=_hold(log, users, stops[users] - 1, max_history),
    )


def _hold(log: EventLog, users: np.ndarray, rows: np.ndarray, max_history: int) -> Held:
    starts = log.offsets[users]
    return Held(
        users=users,
        spans=np.stack([np.maximum(starts, rows - max_history), rows], 1),
        targets=log.items[rows],
        now=log.timestamps[rows],
        seen=[log.items[start:row] for start, row in zip(starts, rows, strict=True)],
    )


def held_out(split: Split) -> np.ndarray:
    """Which of the log's events are not for training [E]."""
    held = np.zeros(len(split.log.items), bool)
    for stop, end in zip(split.train_stop, split.log.offsets[1:], strict=True):
        held[stop:end] = True
    return held


def windows(split: Split, stride: int) -> np.ndarray:
    """Windows [W, 3] of training: the first and the last input's end, and the first event that is a target.

    A user's inputs are cut from the newest end every `stride` events into windows of at most
    `max_history`. A window's targets are the events after its newest `stride` inputs, and the
    oldest window's are all: every training event but a user's first is a target exactly once, with
    at least `max_history - stride` events before it where the user has them.
    """
    spans = []
    for start, stop in zip(split.log.offsets[:-1], split.train_stop, strict=True):
        end = stop - 1
        while end > start:
            begin = max(start, end - split.max_history)
            spans.append((begin, end, begin + 1 if begin == start else end - stride + 1))
            if begin == start:
                break
            end -= stride
    return np.array(spans, np.int64).reshape(-1, 3)


def training_batch(
    log: EventLog, rows: np.ndarray, counts: np.ndarray, targets: np.ndarray
) -> tuple[Jagged, np.ndarray, np.ndarray]:
    """Inputs, which of the flat tokens have a target, and those targets: the events after them.

    `rows` are rows of the log, `counts[b]` (two or more) to window b, of which the newest `targets[b]`
    are targets; a window's last event is no input.
    """
    ends, lengths = np.cumsum(counts), counts - 1
    batch = gather(
        log.items,
        log.timestamps,
        log.ratings,
        np.delete(rows, ends - 1),
        lengths,
        log.timestamps[rows[ends - 1]],
    )
    place = rows_of(np.stack([ends - targets, ends], 1))[0]
    window = np.repeat(np.arange(len(counts)), targets)
    return batch, place - 1 - window, log.items[rows[place]]
