"""`POST /v1/recommend`: a user's history, or who it is, in; items and scores out."""

from array import array
from collections.abc import Mapping
from typing import Annotated

import msgspec

from tradewind.serve.catalogue import Catalogue, Event
from tradewind.serve.errors import RequestError
from tradewind.serve.features.past import Past
from tradewind.serve.history import columns, finite, unix_s
from tradewind.serve.jobs import Prepared, Tensor

UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | int


class RecommendRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A history, oldest first: item ids, or events with time and rating.

    With `user_id`, what is stored of that user comes before it, and may be all there is.
    """

    history: list[str | int | Event] | msgspec.UnsetType = msgspec.UNSET
    user_id: UserId | msgspec.UnsetType = msgspec.UNSET
    """Whose history and features are fetched from the endpoint's feature store."""
    k: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType = msgspec.UNSET
    exclude_seen: bool = True
    user: dict[str, float] = {}
    """Features by name; they count before what is stored."""
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


def read(body: bytes) -> RecommendRequest:
    """Return a request, whatever the model's version. Raises RequestError (400) naming what is wrong."""
    try:
        request = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(400, f"not a recommendation request: {error}") from None
    if request.history is msgspec.UNSET and request.user_id is msgspec.UNSET:
        raise RequestError(400, "not a recommendation request: it needs `history`, `user_id` or both")
    return request


def k_of(request: RecommendRequest, catalogue: Catalogue) -> int:
    """Return how many items are asked for. Raises RequestError (400) for more than there can be."""
    return catalogue.default_k if request.k is msgspec.UNSET else catalogue.check_k(request.k)


def prepare(
    request: RecommendRequest, catalogue: Catalogue, past: Past | None = None
) -> tuple[Prepared, int]:
    """Return the job of a request, with what was stored of its user, and `k`.

    Raises RequestError (400) naming what is wrong.
    """
    now = None if request.now is None else unix_s(request.now, "now")
    items, timestamps, ratings = columns([] if request.history is msgspec.UNSET else request.history)
    k = k_of(request, catalogue)
    positions = catalogue.positions(items)
    features: Mapping[str, float] = {name: finite(value, name) for name, value in request.user.items()}
    if past is not None:
        now = catalogue.now_s() if now is None else now
        positions, timestamps, ratings, features = past.then(
            Past(positions, timestamps, ratings, features), now
        )
    prepared = catalogue.user(
        positions,
        timestamps,
        ratings,
        k=k,
        exclude_seen=request.exclude_seen,
        now=now,
        features=features,
        wanted=b"" if request.filter is msgspec.UNSET else catalogue.filters.check(bytes(request.filter)),
    )
    return prepared, k


def render(
    model: str, k: int, tensors: Mapping[str, Tensor], catalogue: Catalogue, level: str = ""
) -> RecommendResponse:
    """Return the answer to one user: the first `k` items of the row, padding left out."""
    positions, scores = array("q", bytes(tensors["items"].data)), array("f", bytes(tensors["scores"].data))
    pairs = zip(positions[:k], scores[:k], strict=True)
    return RecommendResponse(model, [Item(catalogue.items[p], s) for p, s in pairs if p], level)
