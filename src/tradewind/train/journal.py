"""The journal: what this worker did, one JSON object a line, for whoever started it."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tradewind import names


class Journal:
    """Appends entries to a file; does nothing when there is no file to append to.

    An entry is one `write` to a file opened for appending, so a worker killed at any instant
    leaves whole lines.
    """

    def __init__(self, path: Path | None) -> None:
        self._fd: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._fd is not None:
            close(self._fd)  # At the interpreter's end `os` may be gone before the journal.

    @classmethod
    def from_environment(cls) -> "Journal":
        """The journal that this worker was given, if it was given one."""
        path = os.environ.get(names.ENV_JOURNAL)
        return cls(Path(path) if path else None)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one entry; numbers that JSON lacks are written as `"nan"`, `"inf"`, `"-inf"`."""
        if self._fd is None:
            return
        entry = {"t": time.time(), "kind": kind} | {key: _plain(value) for key, value in fields.items()}
        os.write(self._fd, json.dumps(entry, allow_nan=False).encode() + b"\n")

    def step(self, step: int) -> None:
        """Append that a step is committed: `write("step", step=step)`, at a third of what that takes."""
        if self._fd is not None:
            os.write(self._fd, b'{"t": %r, "kind": "step", "step": %d}\n' % (time.time(), step))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return str(value) if isinstance(value, Path) else value
