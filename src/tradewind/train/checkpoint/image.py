"""One rank's staged state in shared memory: a header, then files exactly as a disk would hold them.

```
0      magic, length and checksum of the description   (written last, zeroed first)
64     the description: step, rank, world, the files and where they lie, as JSON
...    seal: a checksum, then one checksum for every chunk of every file   (may be absent)
4096n  the files, each at a multiple of 4096
```
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import xxhash

from tradewind.train.checkpoint import sums

PAGE = 4096
_PREFIX = struct.Struct("<8sIQ")
_MAGIC = b"tw-image"
_TEXT_AT = 64
_SUM = sums.LENGTH
SUFFIX = ".image"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What an image holds. Images of one host make a set when all but the rank and files agree."""

    step: int
    generation: int
    rank: int
    world: int
    local_rank: int
    local_world: int
    layout: str
    seal_at: int
    files: tuple[tuple[str, int, int], ...]
    """Name, first byte in the image, and size, in the order in which they lie."""

    def encode(self) -> tuple[bytes, bytes]:
        """The prefix and the description that it vouches for."""
        text = msgspec.json.encode(self)
        return _PREFIX.pack(_MAGIC, len(text), xxhash.xxh3_64_intdigest(text)), text

    @property
    def num_chunks(self) -> int:
        """Checksums in the seal."""
        return sum(sums.num_chunks(size) for _, _, size in self.files)

    def common(self) -> "Header":
        """What is alike in all images of a set."""
        return msgspec.structs.replace(self, rank=0, local_rank=0, seal_at=0, files=())


BLANK = bytes(_PREFIX.size)
"""In the prefix's place while an image is being written."""


def room(num_files: int, chunks: int) -> tuple[int, int]:
    """Where the seal and the first file of an image lie."""
    seal_at = _up(_TEXT_AT + 512 + 96 * num_files, _TEXT_AT)
    return seal_at, _up(seal_at + _SUM * (1 + chunks), PAGE)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def write_header(image: memoryview, header: Header) -> None:
    """Make an image valid; all else must have been written."""
    prefix, text = header.encode()
    image[_TEXT_AT : _TEXT_AT + len(text)] = text
    image[: len(prefix)] = prefix


def read_header(image: bytes | memoryview) -> Header | None:
    """The header of an image that is valid, else None."""
    if len(image) < _TEXT_AT:
        return None
    magic, length, digest = _PREFIX.unpack_from(image)
    text = image[_TEXT_AT : _TEXT_AT + length]
    if magic != _MAGIC or xxhash.xxh3_64_intdigest(text) != digest:
        return None
    return msgspec.json.decode(text, type=Header)


def peek(path: Path) -> Header | None:
    """The header of an image file, without reading the rest; None unless it is valid."""
    try:
        with path.open("rb", buffering=0) as file:
            first = file.read(PAGE)
            longer = _PREFIX.unpack_from(first)[1] + _TEXT_AT if len(first) == PAGE else 0
            if PAGE < longer < 1 << 30:
                first += file.read(longer - PAGE)
    except OSError:
        return None  # replaced or cleared meanwhile: it holds nothing for us
    return read_header(first)


def condemn(path: Path, header: Header) -> None:
    """Make an image invalid, if it is still the same."""
    if peek(path) == header:
        with path.open("r+b", buffering=0) as file:
            file.write(BLANK)


def chunk_spans(header: Header) -> Iterator[tuple[int, int]]:
    """First byte in the image and the byte after the last of every chunk of every file, in order."""
    for _, at, size in header.files:
        for start, stop in sums.spans(size):
            yield at + start, at + stop


def write_seal(image: memoryview, header: Header, found: list[bytes]) -> None:
    """Put the checksums into the image, bound to its header."""
    body = b"".join(found)
    image[header.seal_at + _SUM : header.seal_at + _SUM + len(body)] = body
    image[header.seal_at : header.seal_at + _SUM] = _bound(image, body)


def read_seal(image: memoryview, header: Header) -> list[bytes] | None:
    """The checksums, or None when the image has none yet."""
    start = header.seal_at + _SUM
    body = bytes(image[start : start + _SUM * header.num_chunks])
    if bytes(image[header.seal_at : start]) != _bound(image, body):
        return None
    return [body[at : at + _SUM] for at in range(0, len(body), _SUM)]


def _bound(image: memoryview, body: bytes) -> bytes:
    return xxhash.xxh3_128_digest(bytes(image[: _PREFIX.size]) + body)
