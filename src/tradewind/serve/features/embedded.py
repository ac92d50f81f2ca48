"""Users from a file, kept in memory: for one machine, and what a store elsewhere is compared with."""

import asyncio
import pathlib

import msgspec

from tradewind.errors import SpecError
from tradewind.serve.features.base import Document, Fetched, Outcome, decode, encode
from tradewind.serve.features.metrics import FeatureMetrics


class Line(Document, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One user of the file: `{"id": "u17", "history": [...], "user": {...}}`."""

    id: str | int


class Embedded:
    """Every user of a file of JSON lines, read at once; each is kept as the bytes of its document."""

    def __init__(self, path: pathlib.Path, metrics: FeatureMetrics) -> None:
        self._documents = read(path)
        self._metrics = metrics

    def fetch(self, user: str, until_s: float) -> Fetched | asyncio.Future[Fetched]:
        value = self._documents.get(user)
        found = Fetched(Outcome.MISSING) if value is None else Fetched(Outcome.HIT, decode(value))
        self._metrics.observe(found)
        return found

    async def start(self) -> None:
        """Everything is here."""

    async def close(self) -> None:
        """Nothing is open."""


def read(path: pathlib.Path) -> dict[str, bytes]:
    """Return the documents of a file by user. Raises SpecError naming the line that is not one."""
    decoder, found = msgspec.json.Decoder(Line), dict[str, bytes]()
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    _add(found, decoder, text, f"{path}:{number}")
    except OSError as error:
        raise SpecError(f"{path}: the feature store cannot be read: {error.strerror}") from None
    return found


def _add(found: dict[str, bytes], decoder: "msgspec.json.Decoder[Line]", text: bytes, where: str) -> None:
    try:
        line = decoder.decode(text)
        value = encode(line.history, line.user)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, SpecError) as error:
        raise SpecError(f"{where}: {error}") from None
    if str(line.id) in found:
        raise SpecError(f"{where}: user {str(line.id)[:80]!r} is there twice; keep one")
    found[str(line.id)] = value
