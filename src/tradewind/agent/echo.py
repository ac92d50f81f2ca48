"""What workers of this host write, on the agent's own output: where hosts are pods, that is what a cluster keeps."""

import os
import selectors
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tradewind.agent.journal import LineTail
from tradewind.agent.watch import FolderWatch, held_back


def print_line(rank: str, line: bytes) -> None:
    """A line after its rank (`rank3`), whole and at once."""
    sys.stdout.buffer.write(b"[%s] %s\n" % (rank.encode(), line))
    sys.stdout.buffer.flush()


class Echo:
    """A thread that prints every line of the logs below `folder`, from its start to `close`, each exactly once."""

    def __init__(self, folder: Path, emit: Callable[[str, bytes], None] = print_line) -> None:
        """`emit` gets a rank (`rank3`) and a line, on the thread."""
        self._folder, self._emit = folder, emit
        self._tails: dict[Path, LineTail] = {}
        self._watched: set[Path] = set()
        self._closing, self._close = os.pipe2(os.O_CLOEXEC)
        folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, name="echo", daemon=True)
        with held_back():  # Signals are for the main thread, which may not listen yet.
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Print what is left, and end."""
        os.close(self._close)
        self._thread.join()
        os.close(self._closing)

    def _run(self) -> None:
        with FolderWatch() as files, selectors.DefaultSelector() as selector:
            selector.register(files.fd, selectors.EVENT_READ)
            selector.register(self._closing, selectors.EVENT_READ)
            files.add(self._folder)
            closing = False
            while not closing:
                files.drain()
                self._read(files, last=False)
                closing = any(key.fd == self._closing for key, _ in selector.select())
            self._read(files, last=True)

    def _read(self, files: FolderWatch, last: bool) -> None:
        for attempt in sorted(self._folder.glob("attempt*"), key=lambda path: path.stat().st_mtime_ns):
            if attempt not in self._watched:
                files.add(attempt)  # Before it is read, so that nothing falls between.
                self._watched.add(attempt)
            for log in sorted(attempt.glob("rank*.log")):
                for line in self._tails.setdefault(log, LineTail(log)).read(last=last):
                    self._emit(log.stem, line)
