"""`POST /v1/recommend`: a user's history in, items and scores out."""

from array import array
from collections.abc import Mapping
from typing import Annotated

import msgspec

from tradewind.serve.catalogue import MAX_UNIX_S, Catalogue, Event
from tradewind.serve.errors import RequestError
from tradewind.serve.jobs import Prepared, Tensor

MAX_FLOAT32 = 3.4028234e38


class RecommendRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A history, oldest first: item ids, or events with time and rating."""

    history: list[str | int | Event]
    k: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType = msgspec.UNSET
    exclude_seen: bool = True
    user: dict[str, float] = {}
    now: float | None = None
    filter: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """What the items must be: a filter on the attributes that the package declares; without one, any."""
    min_level: str | int | None = None
    """The least level that the client accepts: its name, or its number from 0, the best."""


class Item(msgspec.Struct, frozen=True):
    """One recommended item, best first."""

    item: str
    score: float


class RecommendResponse(msgspec.Struct, frozen=True):
    """The answer: at most `k` items, fewer where the catalogue has no more.

    A user without a history gets popular items, scored by one over their rank.
    """

    model: str
    items: list[Item]
    level: str = ""
    """The quality level that it was made at."""


_decoder = msgspec.json.Decoder(RecommendRequest)


def parse(body: bytes, catalogue: Catalogue) -> tuple[Prepared, int, str | int | None]:
    """Return the job of a request body, `k`, and the least level. Raises RequestError (400) naming what is wrong."""
    try:
        request = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(400, f"not a recommendation request: {error}") from None
    now = None if request.now is None else _unix_s(request.now, "now")
    items, timestamps, ratings = _history(request.history)
    k = catalogue.default_k if request.k is msgspec.UNSET else catalogue.check_k(request.k)
    prepared = catalogue.user(
        catalogue.positions(items),
        timestamps,
        ratings,
        k=k,
        exclude_seen=request.exclude_seen,
        now=now,
        features={name: _finite(value, name) for name, value in request.user.items()},
        wanted=b"" if request.filter is msgspec.UNSET else catalogue.filters.check(bytes(request.filter)),
    )
    return prepared, k, request.min_level


def render(
    model: str, k: int, tensors: Mapping[str, Tensor], catalogue: Catalogue, level: str = ""
) -> RecommendResponse:
    """Return the answer to one user: the first `k` items of the row, padding left out."""
    positions, scores = array("q", bytes(tensors["items"].data)), array("f", bytes(tensors["scores"].data))
    pairs = zip(positions[:k], scores[:k], strict=True)
    return RecommendResponse(model, [Item(catalogue.items[p], s) for p, s in pairs if p], level)


def _history(
    history: list[str | int | Event],
) -> tuple[list[str | int], list[int] | None, list[float] | None]:
    """Items, timestamps and ratings; mostly items alone, which is not to cost as much as the rest could."""
    items = [entry for entry in history if not isinstance(entry, Event)]
    if len(items) == len(history):
        return items, None, None
    events = [entry if isinstance(entry, Event) else Event(entry) for entry in history]
    return (
        [event.item for event in events],
        _timestamps(events),
        [_finite(event.rating, "rating") for event in events],
    )


def _timestamps(events: list[Event]) -> list[int] | None:
    stated = [_unix_s(e.timestamp, "timestamp") for e in events if e.timestamp is not None]
    if stated and len(stated) != len(events):
        raise RequestError(400, "history: give every event a timestamp, or none")
    return stated or None


def _unix_s(value: float, name: str) -> int:
    if not 0 <= value <= MAX_UNIX_S:
        raise RequestError(400, f"{name} must be unix seconds, 0 to {MAX_UNIX_S}")
    return int(value)


def _finite(value: float, name: str) -> float:
    if not -MAX_FLOAT32 <= value <= MAX_FLOAT32:
        raise RequestError(400, f"{name[:80]!r} is out of range for FP32")
    return value
