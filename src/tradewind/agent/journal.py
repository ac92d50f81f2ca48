"""Reading files that workers append to: whole lines only, each exactly once."""

import os
from pathlib import Path
from typing import Any, Literal

import msgspec


class Entry(msgspec.Struct):
    """What every journal entry has."""

    t: float
    kind: str


class Step(msgspec.Struct):
    """What an entry about a step has besides."""

    step: int


class Metric(msgspec.Struct):
    """What a metric has besides; numbers that JSON lacks are words."""

    step: int
    name: str
    value: float | Literal["nan", "inf", "-inf"]


class Meter(msgspec.Struct):
    """What a cumulative ledger has besides."""

    buckets: dict[str, float]
    wall_s: float


_SHAPES: dict[str, type] = {"step": Step, "checkpoint": Step, "metric": Metric, "ledger": Meter}


class LineTail:
    """The lines appended to a file since the last read; the file need not exist yet."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self._rest = b""

    def read(self, last: bool = False) -> list[bytes]:
        """New complete lines; with `last` also the piece after the final newline."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self.offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if last and self._rest:
            lines.append(self._rest)
            self._rest = b""
        return lines


class JournalTail:
    """One rank's journal entries, as they are written."""

    def __init__(self, path: Path, rank: int) -> None:
        self.rank = rank
        self._lines = LineTail(path)

    def read(self) -> list[dict[str, Any]]:
        """New entries."""
        return [entry for line in self._lines.read() if (entry := parse(line)) is not None]


def parse(line: bytes) -> dict[str, Any] | None:
    """The entry on a line; None when it is not one, since whatever a worker writes must not end its agent."""
    try:
        body: dict[str, Any] = msgspec.json.decode(line)  # JSON proper: no NaN, no infinity.
        entry = msgspec.convert(body, Entry)
        if entry.kind in _SHAPES:
            msgspec.convert(body, _SHAPES[entry.kind])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body


def make_folder(path: Path) -> None:
    """Create the folder that holds `path`."""
    os.makedirs(path.parent, exist_ok=True)
