"""Waiting for what can happen to a group of workers: an exit, a written file, a signal, a deadline."""

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_IN_MODIFY = 0x2
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_ASKING = (signal.SIGINT, signal.SIGTERM)
_libc = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Readable when a file in one of the folders was created or written (Linux inotify)."""

    def __init__(self) -> None:
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed; raise fs.inotify.max_user_instances")

    def add(self, folder: Path) -> None:
        """Watch one more folder."""
        mask = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO
        if _libc.inotify_add_watch(self.fd, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}; raise fs.inotify.max_user_watches")

    def drain(self) -> bool:
        """Forget what was signalled so far, if anything was; the caller reads the files."""
        signalled = False
        try:
            while os.read(self.fd, 65536):
                signalled = True
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        return signalled

    def __enter__(self) -> "FolderWatch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)


@contextmanager
def held_back() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until `Signals` listens, so that none is lost while an agent starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """SIGINT and SIGTERM as something to select on, with the earlier handlers put back at the end.

    Works only in the main thread, as Python's signal handling does. Signals that were held back (blocked)
    until now arrive now.
    """

    def __init__(self, signals: Iterable[int] = _ASKING) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, Any] = {s: signal.signal(s, self._handle) for s in signals}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        os.write(self._write, struct.pack("B", signum))

    def read(self) -> list[int]:
        """The signals that arrived since the last read."""
        try:
            return list(os.read(self.fd, 64))
        except BlockingIOError:
            return []

    def __enter__(self) -> "Signals":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        os.close(self.fd)
        os.close(self._write)
