"""Log every change a process makes below a folder, in order and with its bytes, and kill it at one of them.

Python's own calls are watched (`os.*` and `open`), in every process and thread that shares a log:
a lock lets one operation happen at a time, so the log's order is the order of the effects. A write
that goes around Python is not seen; `disk.Disk` finds that out, because the log then no longer
makes the folder that is there.
"""

import builtins
import contextlib
import fcntl
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

_REAL = {name: getattr(os, name) for name in dir(os)}
_REAL_OPEN = builtins.open
_WRITABLE = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Op:
    """One change: `path` is relative to the folder, `to` the new name, `data` what was written at `offset`."""

    kind: str
    path: str
    to: str = ""
    offset: int = 0
    data: bytes = field(default=b"", repr=False)


def read_log(path: Path) -> list[Op]:
    """The operations of a log, in order; what a killed process did not finish logging did not happen."""
    ops = []
    with _REAL_OPEN(path, "rb") as log:
        while line := log.readline():
            size = (head := json.loads(line)).pop("size")
            ops.append(Op(**head, data=log.read(size)))
    return ops


class Recorder:
    """Performs operations below `root` one at a time and logs each; SIGKILL comes instead of number `kill_at`."""

    def __init__(self, root: Path, log: Path, kill_at: int | None = None, tear: float = 0.0) -> None:
        self.root = os.path.realpath(root)
        self.tear = tear
        self._left = kill_at
        self._log = log
        self._file: BinaryIO | None = None
        self._owner = 0
        self._thread_lock = threading.RLock()

    def relative(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the root, or None when it is elsewhere or no longer has a name."""
        text = os.fsdecode(path)
        base = _REAL["readlink"](f"/proc/self/fd/{dir_fd}") if dir_fd is not None else _REAL["getcwd"]()
        full = os.path.normpath(os.path.join(base, text))
        parent, name = os.path.split(full)
        full = os.path.join(os.path.realpath(parent), name)
        if full == self.root:
            return ""
        return full[len(self.root) + 1 :] if full.startswith(self.root + "/") else None

    def path_of(self, fd: int) -> str | None:
        """The path below the root that an open file has now."""
        path = _REAL["readlink"](f"/proc/self/fd/{fd}")
        return None if path.endswith(" (deleted)") else self.relative(path)

    def due(self) -> bool:
        """Whether the next operation is the one at which the process is to die."""
        return self._left == 0

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """This operation's turn among all threads and processes that share the log."""
        with self._thread_lock:
            file = self._opened()
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def happened(self, op: Op) -> None:
        """Log an operation that has just taken effect; only inside its turn."""
        head = {"kind": op.kind, "path": op.path, "to": op.to, "offset": op.offset, "size": len(op.data)}
        file = self._opened()
        file.write(json.dumps(head).encode() + b"\n" + op.data)
        file.flush()
        if self._left is not None:
            self._left -= 1

    def simple(self, op: Op, perform: Callable[[], Any]) -> Any:
        """Perform and log an operation that either happens or does not."""
        with self.turn():
            self.die_if_due()
            result = perform()
            self.happened(op)
        return result

    def die_if_due(self) -> None:
        """SIGKILL this process when its time has come."""
        if self.due():
            os.kill(os.getpid(), signal.SIGKILL)

    def region(self, fd: int, path: str, start: int, perform: Callable[[], int]) -> int:
        """Perform a write and log the bytes that are then in the file."""
        with self.turn():
            self.die_if_due()
            count = perform()
            if count:
                with _REAL_OPEN(f"/proc/self/fd/{fd}", "rb", buffering=0) as view:
                    self.happened(Op("write", path, offset=start, data=os.pread(view.fileno(), count, start)))
        return count

    def close(self) -> None:
        """Close this process's hold of the log; it is opened again when needed."""
        if self._file is not None and self._owner == os.getpid():
            self._file.close()
        self._file, self._owner = None, 0

    def _opened(self) -> BinaryIO:
        # A lock belongs to the open file, which a forked child would share with its parent.
        if self._owner != os.getpid():
            self._file, self._owner = _REAL_OPEN(self._log, "ab"), os.getpid()
        assert self._file is not None
        return self._file


def note(recorder: Recorder, text: str) -> None:
    """Put a mark between operations; it counts as none."""
    with recorder.turn():
        left = recorder._left
        recorder.happened(Op("note", text))
        recorder._left = left


class _File(io.FileIO):
    """A file whose writes are recorded."""

    recorder: Recorder

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        path = self.recorder.path_of(self.fileno())
        if path is None:
            return super().write(view)
        start = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        if self.recorder.due() and self.recorder.tear and len(view) > 1:
            # The kernel may have taken a part of a write when the process dies in it.
            part = view[: max(1, int(len(view) * self.recorder.tear))]
            left, self.recorder._left = self.recorder._left, None
            self.recorder.region(self.fileno(), path, start, lambda: super(_File, self).write(part))
            self.recorder._left = left
        return self.recorder.region(self.fileno(), path, start, lambda: super(_File, self).write(view))

    def truncate(self, size: int | None = None, /) -> int:
        size = self.tell() if size is None else size
        path = self.recorder.path_of(self.fileno())
        if path is None:
            return super().truncate(size)
        return int(
            self.recorder.simple(Op("truncate", path, offset=size), lambda: super(_File, self).truncate(size))
        )


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Watch this process's changes below the recorder's root while in the block."""
    patched = _patches(recorder)
    for name, replacement in patched.items():
        setattr(os, name, replacement)
    opener = _open(recorder, patched["open"])
    builtins.open = io.open = opener  # type: ignore[assignment]
    try:
        yield recorder
    finally:
        for name in patched:
            setattr(os, name, _REAL[name])
        builtins.open = io.open = _REAL_OPEN
        recorder.close()


def _open(recorder: Recorder, os_open: Callable[..., int]) -> Callable[..., Any]:
    class File(_File):
        pass

    File.recorder = recorder

    def open_(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        path = recorder.path_of(file) if isinstance(file, int) else recorder.relative(file)
        if path is None or not set(mode) & set("wax+"):
            return _REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = File(file, mode.replace("b", "").replace("t", ""), closefd, opener or os_open)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    return open_


def _patches(recorder: Recorder) -> dict[str, Callable[..., Any]]:
    return _names(recorder) | _descriptors(recorder)


def _names(recorder: Recorder) -> dict[str, Callable[..., Any]]:
    """Calls that take names."""

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = recorder.relative(path, dir_fd)
        perform = lambda: _REAL["open"](path, flags, mode, dir_fd=dir_fd)  # noqa: E731
        if name is None or not flags & (_WRITABLE | os.O_CREAT):
            return int(perform())
        with recorder.turn():
            full = os.path.join(recorder.root, name)
            fresh = flags & os.O_CREAT and not os.path.exists(full)
            empties = flags & os.O_TRUNC and not fresh
            if fresh or empties:
                recorder.die_if_due()
            fd = int(perform())
            if fresh or empties:
                recorder.happened(Op("create" if fresh else "truncate", name))
        return fd

    def one(kind: str, real: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, dir_fd: int | None = None) -> Any:
            name = None if isinstance(path, int) else recorder.relative(path, dir_fd)
            extra = {"dir_fd": dir_fd} if dir_fd is not None else {}
            perform = lambda: _REAL[real](path, *args, **extra)  # noqa: E731
            return perform() if name is None else recorder.simple(Op(kind, name), perform)

        return call

    def two(kind: str, real: str) -> Callable[..., Any]:
        def call(source: Any, target: Any, **kwargs: Any) -> Any:
            old = recorder.relative(source, kwargs.get("src_dir_fd"))
            new = recorder.relative(target, kwargs.get("dst_dir_fd"))
            perform = lambda: _REAL[real](source, target, **kwargs)  # noqa: E731
            if old is None and new is None:
                return perform()
            if old is None or new is None:
                raise NotImplementedError(f"{real} across the edge of {recorder.root}")
            return recorder.simple(Op(kind, old, to=new), perform)

        return call

    def truncate(path: Any, length: int) -> None:
        name = recorder.path_of(path) if isinstance(path, int) else recorder.relative(path)
        perform = lambda: _REAL["truncate"](path, length)  # noqa: E731
        if name is None:
            perform()
        else:
            recorder.simple(Op("truncate", name, offset=length), perform)

    return {
        "open": open_,
        "mkdir": one("mkdir", "mkdir"),
        "unlink": one("unlink", "unlink"),
        "remove": one("unlink", "remove"),
        "rmdir": one("rmdir", "rmdir"),
        "rename": two("rename", "rename"),
        "replace": two("rename", "replace"),
        "link": two("link", "link"),
        "truncate": truncate,
        "ftruncate": truncate,
    }


def _descriptors(recorder: Recorder) -> dict[str, Callable[..., Any]]:
    """Calls that take open files."""

    def sync(real: str) -> Callable[..., None]:
        def call(file: Any) -> None:
            fd = file if isinstance(file, int) else file.fileno()
            path = recorder.path_of(fd)
            perform = lambda: _REAL[real](fd)  # noqa: E731
            if path is None:
                perform()
            else:
                recorder.simple(Op("sync", path), perform)

        return call

    def written(real: str, target: int, position: int | None) -> Callable[..., int]:
        """`target` is the argument that is the file, `position` the one that says where, if any does."""

        def call(*args: Any) -> int:
            fd = args[target]
            path = recorder.path_of(fd)
            if path is None:
                return int(_REAL[real](*args))
            explicit = args[position] if position is not None and len(args) > position else None
            start = os.lseek(fd, 0, os.SEEK_CUR) if explicit is None else explicit
            return recorder.region(fd, path, start, lambda: _REAL[real](*args))

        return call

    return {
        "fsync": sync("fsync"),
        "fdatasync": sync("fdatasync"),
        "write": written("write", 0, None),
        "writev": written("writev", 0, None),
        "pwrite": written("pwrite", 0, 2),
        "pwritev": written("pwritev", 0, 2),
        "sendfile": written("sendfile", 0, None),
        "copy_file_range": written("copy_file_range", 1, 4),
    }
