"""Read verified bytes of many files straight to where they belong, several chunks at a time."""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint import sums
from tradewind.train.checkpoint.copying import pool

_READERS = 4
"""One keeps neither a disk nor two processors busy; more found nothing left to win."""
_MOST_BUFFERS = 1024
"""The kernel's limit for one read."""


@dataclass
class Source:
    """A file of a checkpoint, and the ranges of it that are wanted: (first byte, where they go)."""

    path: Path
    size: int
    expected: list[bytes]
    ranges: list[tuple[int, memoryview]] = field(default_factory=list)

    def chunks(self, check: "Check") -> Iterator[tuple[int, int, list[tuple[int, memoryview]]]]:
        """(first byte, the byte after the last, ranges that touch it) of the chunks that are to be read."""
        self.ranges.sort(key=lambda wanted: wanted[0])
        starts = [start for start, _ in self.ranges]
        first = 0
        for number, (start, stop) in enumerate(sums.spans(self.size)):
            while first < len(self.ranges) and _end(self.ranges[first]) <= start:
                first += 1
            touching = self.ranges[first : bisect_right(starts, stop - 1)]
            if touching or check(self, number):
                yield start, stop, touching


def _end(wanted: tuple[int, memoryview]) -> int:
    return wanted[0] + len(wanted[1])


Check = Callable[[Source, int], bool]
"""Whether the chunk of this number, of which nothing is wanted, is verified too."""


def nothing_else(source: Source, number: int) -> bool:
    """Verify what is wanted."""
    return False


def everything(source: Source, number: int) -> bool:
    """Verify all there is."""
    return True


def fetch(sources: Iterable[Source], check: Check = nothing_else, *, turn: float = 0.0) -> None:
    """Fill all ranges of all sources, from verified chunks only, and verify what else is to be checked.

    `turn`, from 0 to 1, is where in the work to begin: workers of a host that read the same files begin
    at different places, and each finds in the page cache what another has read. Raises an IntegrityError that names the file and the bytes in it that are not as they were written.
    """
    opened = [(source, _open(source)) for source in sources]
    try:
        work = [(source, fd, *chunk) for source, fd in opened for chunk in source.chunks(check)]
        begin = int(turn * len(work))
        work = work[begin:] + work[:begin]
        if sum(stop - start for _, _, start, stop, _ in work) <= sums.CHUNK:
            for chunk in work:
                _read(*chunk)
        else:
            for _ in pool(_READERS).map(lambda chunk: _read(*chunk), work):
                pass
    finally:
        for _, fd in opened:
            os.close(fd)


def _open(source: Source) -> int:
    try:
        fd = os.open(source.path, os.O_RDONLY)
    except OSError as error:
        raise IntegrityError(f"{source.path} cannot be read: {error.strerror}") from error
    size = os.fstat(fd).st_size
    if size != source.size:
        os.close(fd)
        raise IntegrityError(f"{source.path} is damaged: {size} bytes where {source.size} were written")
    return fd


def _read(source: Source, fd: int, start: int, stop: int, touching: list[tuple[int, memoryview]]) -> None:
    buffers = _buffers(start, stop, touching)
    position = start
    digest = xxhash.xxh3_128()
    try:
        for at in range(0, len(buffers), _MOST_BUFFERS):
            position = _fill(fd, buffers[at : at + _MOST_BUFFERS], position)
    except OSError as error:
        raise IntegrityError(f"{source.path} cannot be read: {error.strerror}") from error
    for buffer in buffers:
        digest.update(buffer)
    if digest.digest() != source.expected[start // sums.CHUNK]:
        raise IntegrityError(
            f"{source.path} is damaged: bytes {start} to {stop} are not those that were written"
        )


def _buffers(start: int, stop: int, touching: list[tuple[int, memoryview]]) -> list[memoryview]:
    """Where the bytes of a chunk go, in order; those that nobody wants into a buffer of their own."""
    buffers = []
    position = start
    for first, target in touching:
        begin, end = max(first, start), min(first + len(target), stop)
        if begin > position:
            buffers.append(memoryview(bytearray(begin - position)))
        buffers.append(target[begin - first : end - first])
        position = end
    if position < stop:
        buffers.append(memoryview(bytearray(stop - position)))
    return buffers


def _fill(fd: int, buffers: list[memoryview], position: int) -> int:
    """Read into all buffers from a position on; the position after."""
    while buffers:
        count = os.preadv(fd, buffers, position)
        if count == 0:
            raise OSError(0, "it ends early")
        position += count
        while buffers and count >= len(buffers[0]):
            count -= len(buffers[0])
            buffers = buffers[1:]
        if count:
            buffers = [buffers[0][count:], *buffers[1:]]
    return position
