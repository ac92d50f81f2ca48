"""Checksums of files by chunk, so that damage is found where it is and reading may stop short of the end."""

from collections.abc import Iterator
from typing import Any

import xxhash

from tradewind.train.checkpoint.pace import PIECE, UNHURRIED, Pace

CHUNK = 4 << 20
"""Bytes under one checksum: the least that must be read to trust any of them."""
LENGTH = 16
"""Bytes of a checksum."""


def num_chunks(size: int) -> int:
    """Checksums of a file of `size` bytes; an empty file has none."""
    return -(-size // CHUNK)


def spans(size: int) -> Iterator[tuple[int, int]]:
    """First byte and the byte after the last of every chunk."""
    return ((start, min(size, start + CHUNK)) for start in range(0, size, CHUNK))


def of_chunk(data: Any, pace: Pace = UNHURRIED) -> bytes:
    """The checksum of one chunk: 128 bits of XXH3."""
    if pace.is_hurried:
        return xxhash.xxh3_128_digest(data)
    view, found = memoryview(data), xxhash.xxh3_128()
    for at in range(0, len(view), PIECE):
        with pace.working():
            found.update(view[at : at + PIECE])
    return found.digest()


def of(data: Any, pace: Pace = UNHURRIED) -> list[bytes]:
    """The checksums of all chunks of `data`."""
    view = memoryview(data)
    return [of_chunk(view[start:stop], pace) for start, stop in spans(len(view))]
