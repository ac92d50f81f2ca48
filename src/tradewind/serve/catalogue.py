"""Items of a recommender by their external ids, and one user's request as tensors; no torch, no numpy."""

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import msgspec

from tradewind.errors import TradewindError
from tradewind.serve.errors import RequestError
from tradewind.serve.filtering import FILTER, FILTER_BYTES, ItemFilters
from tradewind.serve.jobs import Prepared, Tensor

DEFAULT_K = 10
MAX_UNIX_S = 1 << 40


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What of a recommender package's config serving reads; other keys are the model's own."""

    max_history: Annotated[int, msgspec.Meta(ge=1)] = 50
    user_features: tuple[str, ...] = ()
    popular: tuple[int, ...] = ()
    """Positions, best first: the answer to a user without a history."""


def settings_of(config: Mapping[str, object], num_items: int) -> Settings:
    """Return the settings. Raises TradewindError naming what the package's config has wrong."""
    try:
        settings = msgspec.convert(config, Settings)
    except msgspec.ValidationError as error:
        raise TradewindError(f"the package's config cannot be served: {error}; publish it anew") from None
    for position in settings.popular:
        if not 1 <= position <= num_items:
            raise TradewindError(
                f"the package's config cannot be served: popular item {position} is not one of 1 to {num_items}"
            )
    return settings


class Event(msgspec.Struct, frozen=True):
    """One item of a history, oldest first; `timestamp` in unix seconds, `rating` 0 where there is none."""

    item: str | int
    timestamp: float | None = None
    rating: float = 0.0


class Catalogue:
    """The vocabulary, and what a request may ask of this model."""

    def __init__(
        self,
        items: list[str],
        config: Mapping[str, object],
        max_k: int,
        clock: Callable[[], float] = time.time,
        filters: ItemFilters | None = None,
    ) -> None:
        settings = settings_of(config, len(items) - 1)
        self.items = items
        self.max_k = max_k
        self.default_k = min(DEFAULT_K, max_k)
        self.user_features = settings.user_features
        self.popular = settings.popular
        self.filters = filters or ItemFilters()
        self._positions: dict[str | int, int] = {item: i for i, item in enumerate(items) if i}
        self._max_history = settings.max_history
        self._clock = clock

    def position(self, item: str | int) -> int:
        """Return the position of an item. Raises RequestError (400) when the model does not know it."""
        position = self._positions.get(item if isinstance(item, str) else str(item))
        if position is None:
            raise RequestError(400, f"unknown item {str(item)[:80]!r}")
        return position

    def positions(self, items: Sequence[str | int]) -> list[int]:
        """Return the positions of items. Raises RequestError (400) for the first that the model does not know."""
        known = self._positions
        found = [known.get(item) for item in items]
        return [self.position(items[i]) if at is None else at for i, at in enumerate(found)]

    def known(self, items: Sequence[str | int]) -> list[int]:
        """Return the positions of items, 0 for those that the model does not know."""
        known = self._positions
        return [known.get(item) or known.get(str(item), 0) for item in items]

    def now_s(self) -> int:
        """Return the time, in unix seconds."""
        return int(self._clock())

    def check_position(self, position: int) -> int:
        """Return `position` when it names an item. Raises RequestError (400) otherwise."""
        if not 0 < position < len(self.items):
            raise RequestError(400, f"unknown item position {position}; they are 1 to {len(self.items) - 1}")
        return position

    def check_k(self, k: object) -> int:
        """Return `k` when it is a count this model can give. Raises RequestError (400) otherwise."""
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= self.max_k:
            raise RequestError(400, f"k must be an integer from 1 to {self.max_k}")
        return k

    def user(
        self,
        positions: Sequence[int],
        timestamps: Sequence[int] | None = None,
        ratings: Sequence[float] | None = None,
        *,
        k: int,
        exclude_seen: bool = True,
        now: int | None = None,
        features: Mapping[str, float] | None = None,
        wanted: bytes = b"",
    ) -> Prepared:
        """Return one user's row: the newest `max_history` events, jagged, and what was asked for.

        Everything in the history is left out of the answer when `exclude_seen`, also what was cut. Only
        items that the filter `wanted` holds are in it: its JSON, as `filters.check` returned it.
        """
        at = self.now_s() if now is None else now
        length = max(1, min(len(positions), self._max_history))
        values = array("q", positions[-length:] or [0])
        times = array("q", timestamps[-length:] if timestamps else [at] * len(values))
        stars = array("f", ratings[-length:] if ratings else [0.0] * len(values))
        seen = array("q", positions if exclude_seen else [])
        row = {
            "values": Tensor("INT64", (len(values),), values.tobytes()),
            "timestamps": Tensor("INT64", (len(times),), times.tobytes()),
            "ratings": Tensor("FP32", (len(stars),), stars.tobytes()),
            "lengths": Tensor("INT64", (1,), array("q", [len(values)]).tobytes()),
            "now": Tensor("INT64", (1,), array("q", [at]).tobytes()),
            "k": Tensor("INT64", (1,), array("q", [k]).tobytes()),
            "seen": Tensor("INT64", (len(seen),), seen.tobytes()),
            "num_seen": Tensor("INT64", (1,), array("q", [len(seen)]).tobytes()),
            "user": self._features(features or {}),
        }
        if self.filters.declared:
            row[FILTER] = Tensor("UINT8", (len(wanted),), wanted)
            row[FILTER_BYTES] = Tensor("INT64", (1,), array("q", [len(wanted)]).tobytes())
        return Prepared(row, 1, "recommend")

    def _features(self, features: Mapping[str, float]) -> Tensor:
        for name in features:
            if name not in self.user_features:
                known = ", ".join(self.user_features) or "none"
                raise RequestError(400, f"unknown user feature {name[:80]!r}; this model has {known}")
        row = array("f", [features.get(name, 0.0) for name in self.user_features])
        return Tensor("FP32", (1, len(row)), row.tobytes())


def join(rows: Sequence[Prepared]) -> Prepared:
    """Return one request of several users."""
    if len(rows) == 1:
        return rows[0]
    tensors = {}
    for name, first in rows[0].tensors.items():
        parts = [row.tensors[name] for row in rows]
        shape = (sum(p.shape[0] for p in parts), *first.shape[1:])
        tensors[name] = Tensor(first.dtype, shape, b"".join(p.data for p in parts))
    return Prepared(tensors, len(rows), rows[0].key)
