"""What a store says of a user, in one model's words, and what a request adds to it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from tradewind.serve.catalogue import Catalogue
from tradewind.serve.features.base import Stored

T = TypeVar("T")


class Past(NamedTuple):
    """A history by positions, column by column as `history.Columns` has it, and features that the model has."""

    positions: list[int]
    timestamps: list[int] | None
    ratings: list[float] | None
    user: Mapping[str, float]

    def then(self, newer: "Past", now: int) -> "Past":
        """Return this and after it what a request carries itself, whose features win.

        Where only one of both has timestamps, the other's events are as near to it as can be: those of the request
        are of `now`, the stored ones as old as the request's oldest.
        """
        oldest = min(newer.timestamps) if newer.timestamps else now
        return Past(
            self.positions + newer.positions,
            _joined(self, newer, self.timestamps, newer.timestamps, oldest, now),
            _joined(self, newer, self.ratings, newer.ratings, 0.0, 0.0),
            {**self.user, **newer.user},
        )


def past_of(stored: Stored, catalogue: Catalogue) -> tuple[Past, int]:
    """Return what a model can use of what is stored, and how many items it does not know."""
    found = catalogue.known(stored.history.items)
    kept = [i for i, position in enumerate(found) if position]
    names = catalogue.user_features
    past = Past(
        [found[i] for i in kept],
        _kept(stored.history.timestamps, kept),
        _kept(stored.history.ratings, kept),
        {name: value for name, value in stored.user.items() if name in names},
    )
    return past, len(found) - len(kept)


def _kept(column: Sequence[T] | None, kept: Sequence[int]) -> list[T] | None:
    return None if column is None else [column[i] for i in kept]


def _joined(
    older: Past, newer: Past, first: list[T] | None, second: list[T] | None, fill_older: T, fill_newer: T
) -> list[T] | None:
    """Return one column of both; None where neither has it."""
    if first is None and second is None:
        return None
    before = [fill_older] * len(older.positions) if first is None else first
    return before + ([fill_newer] * len(newer.positions) if second is None else second)
