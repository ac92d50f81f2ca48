"""Reading files that workers append to: whole lines only, each exactly once."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any


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
        """New entries; a line torn by a kill is skipped, since nothing was committed by it."""
        entries = []
        for line in self._lines.read():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and "kind" in entry and "t" in entry:
                    entries.append(entry)
        return entries


def make_folder(path: Path) -> None:
    """Create the folder that holds `path`."""
    os.makedirs(path.parent, exist_ok=True)
