"""Files that are on the disk when the call returns, with the checksums of what was meant to be there."""

import errno
import fcntl
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

from tradewind.train.checkpoint import sums
from tradewind.train.checkpoint.image import PAGE
from tradewind.train.checkpoint.pace import PIECE, UNHURRIED, Pace

BLOCK = 4 * sums.CHUNK
"""Bytes written at a time: enough for a disk to reach its speed past the page cache."""
Entry = dict[str, Any]


def entry(size: int, found: list[bytes]) -> Entry:
    """What a manifest says of a file."""
    return {"size": size, "sums": b"".join(found).hex()}


def write_file(path: Path, data: bytes) -> Entry:
    """Write a small file and fsync it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return entry(len(data), sums.of(data))


def write_blocks(
    path: Path,
    size: int,
    blocks: Iterable[memoryview],
    *,
    known: list[bytes] | None = None,
    pace: Pace = UNHURRIED,
) -> Entry:
    """Write a large file and fsync it, past the page cache where the file system can.

    Blocks lie at a page's begin and have BLOCK bytes each, the last one a whole number of pages; a
    block must stay as it is until the one after the next is asked for. Checksums are computed while
    the disk writes, or `known`; at a `pace` one follows on the other, in pieces.
    """
    fd = _open_direct(path)
    found: list[bytes] = []
    pending: deque[Future[None]] = deque()
    at = 0
    try:
        for block in blocks:
            pace.rest(0.0)  # Where in a hurry because it is given up, the work ends here.
            hurried = pace.is_hurried
            if hurried:
                pending.append(_writer().submit(_write_at, fd, block, at))
            if known is None:
                found += sums.of(block[: size - at], pace)
            if not hurried:
                _write_slowly(fd, block, at, pace)
            at += len(block)
            while len(pending) > hurried:
                pending.popleft().result()
        while pending:
            pending.popleft().result()
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        wait(pending)
        os.close(fd)
    return entry(size, found if known is None else known)


@cache
def _writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="tradewind-write")


os.register_at_fork(after_in_child=_writer.cache_clear)  # threads do not come along


def blocks_of(image: memoryview, at: int, size: int) -> Iterator[memoryview]:
    """A file in an image, block by block, its last page whole."""
    end = at + -(-size // PAGE) * PAGE
    return (image[start : min(end, start + BLOCK)] for start in range(at, end, BLOCK))


def _open_direct(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(path, flags | os.O_DIRECT, 0o644)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o644)  # a file system without direct writing, such as tmpfs


def _write_slowly(fd: int, block: memoryview, at: int, pace: Pace) -> None:
    for start in range(0, len(block), PIECE):
        with pace.working():
            _write_at(fd, block[start : start + PIECE], at + start)


def _write_at(fd: int, block: memoryview, at: int) -> None:
    done = 0
    while done < len(block):
        try:
            done += os.pwrite(fd, block[done:], at + done)
        except OSError as error:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & os.O_DIRECT:
                raise
            # It opens files for direct writing, but wants other alignments than a page's.
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
