"""What a user's document holds, what a fetch comes to, and what every source of them can do."""

import asyncio
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from tradewind.errors import SpecError
from tradewind.serve.catalogue import Event
from tradewind.serve.errors import RequestError
from tradewind.serve.history import Columns, columns, finite

MAX_VALUE_BYTES = 1 << 20
"""Of one user's document: decoding more would hold up everybody else's requests."""


class Outcome(enum.StrEnum):
    """What came of a fetch; the header `x-features` says it to the client."""

    HIT = "hit"
    MISSING = "missing"
    """Nothing is stored of this user."""
    LATE = "late"
    """It did not come in time, or there was no time to ask."""
    FAILED = "failed"
    """The store gave an error, or was lost on the way."""
    MALFORMED = "malformed"
    """What is stored is not what `encode` makes."""
    DOWN = "down"
    """The store is known not to answer: it was not asked."""


class Stored(NamedTuple):
    """What is known of a user: events that are older than any a request carries, and features by name."""

    history: Columns
    user: Mapping[str, float]


class Fetched(NamedTuple):
    """What came of a fetch, and how long that took from `asked_s` on, on the monotonic clock: 0 where nobody waited."""

    outcome: Outcome
    stored: Stored | None = None
    seconds: float = 0.0
    asked_s: float = 0.0


class Source(Protocol):
    """Where users are fetched from."""

    def fetch(self, user: str, until_s: float) -> Fetched | asyncio.Future[Fetched]:
        """Return what is known of a user, or what will have it by `until_s` on the monotonic clock. Never fails.

        Whoever does not want it any more cancels the future.
        """
        ...

    async def start(self) -> None:
        """Be ready to fetch; a store that is not there yet is no error."""
        ...

    async def close(self) -> None:
        """Fetch no more."""
        ...


class Store(Protocol):
    """What holds the documents, somewhere else."""

    async def get(self, users: Sequence[str]) -> Sequence[bytes | None]:
        """Return the documents of these users in one round trip, in order, None where there is none.

        Raises StoreDown. Once it was cancelled, it may be called again.
        """
        ...

    async def check(self) -> None:
        """Return if it would answer. Raises StoreDown."""
        ...

    async def close(self) -> None: ...


class StoreDown(Exception):
    """The store did not do what it was asked; the message says why, without what is secret."""


class Malformed(Exception):
    """A document is not one; the message says why, without its content."""


class Document(msgspec.Struct, frozen=True):
    """The JSON under a user's key; other fields of it are somebody else's."""

    history: list[str | int | Event] = []
    user: dict[str, float] = {}


_decoder = msgspec.json.Decoder(Document)


def encode(
    history: Iterable[str | int | Event | Mapping[str, object]] = (), user: Mapping[str, float] | None = None
) -> bytes:
    """Return the value for a user's key: events oldest first, as in a request, and features by name.

    Raises SpecError naming what is wrong with them.
    """
    value = msgspec.json.encode({"history": list(history), "user": dict(user or {})})
    try:
        decode(value)
    except Malformed as error:
        raise SpecError(f"not a user's document: {error}") from None
    return value


def decode(value: bytes) -> Stored:
    """Return what a document says. Raises Malformed."""
    if len(value) > MAX_VALUE_BYTES:
        raise Malformed(f"it has {len(value)} bytes; {MAX_VALUE_BYTES} is the limit")
    try:
        document = _decoder.decode(value)
        user = {name: finite(number, name) for name, number in document.user.items()}
        return Stored(columns(document.history), user)
    except (msgspec.MsgspecError, RequestError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None
