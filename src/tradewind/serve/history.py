"""A history as it was sent, column by column."""

from collections.abc import Sequence
from typing import NamedTuple

from tradewind.serve.catalogue import MAX_UNIX_S, Event
from tradewind.serve.errors import RequestError

MAX_FLOAT32 = 3.4028234e38


class Columns(NamedTuple):
    """Items, oldest first; timestamps in unix seconds and ratings, None where no event has any."""

    items: Sequence[str | int]
    timestamps: list[int] | None = None
    ratings: list[float] | None = None


def columns(history: list[str | int | Event]) -> Columns:
    """Take a history apart; mostly it is items alone, which is not to cost as much as the rest could.

    Raises RequestError (400) naming what is wrong.
    """
    items = [entry for entry in history if not isinstance(entry, Event)]
    if len(items) == len(history):
        return Columns(items)
    events = [entry if isinstance(entry, Event) else Event(entry) for entry in history]
    return Columns(
        [event.item for event in events],
        _timestamps(events),
        [finite(event.rating, "rating") for event in events],
    )


def unix_s(value: float, name: str) -> int:
    """Return whole seconds. Raises RequestError (400) where they are no time of ours."""
    if not 0 <= value <= MAX_UNIX_S:
        raise RequestError(400, f"{name} must be unix seconds, 0 to {MAX_UNIX_S}")
    return int(value)


def finite(value: float, name: str) -> float:
    """Return a number that fits into FP32. Raises RequestError (400) otherwise."""
    if not -MAX_FLOAT32 <= value <= MAX_FLOAT32:
        raise RequestError(400, f"{name[:80]!r} is out of range for FP32")
    return value


def _timestamps(events: list[Event]) -> list[int] | None:
    stated = [unix_s(e.timestamp, "timestamp") for e in events if e.timestamp is not None]
    if stated and len(stated) != len(events):
        raise RequestError(400, "history: give every event a timestamp, or none")
    return stated or None
