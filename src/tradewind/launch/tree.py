"""What a snapshot keeps of its files: a manifest in parts, so that an edit writes one part and not all of it."""

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from tradewind.errors import IntegrityError

if TYPE_CHECKING:
    from tradewind.store import Blobs

PART_ENTRIES = 64
"""Of a part, on average."""
_PARALLEL = 8

T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One path of a tree: a file (`digest`, `size`, `executable`) or a symbolic link (`link`)."""

    path: str
    digest: str = ""
    size: int = 0
    executable: bool = False
    link: str | None = None


class Whole(msgspec.Struct, frozen=True, tag_field="version", tag=1):
    """A manifest of all entries in one blob: what snapshots wrote first, and are still read from."""

    entries: tuple[Entry, ...]


class Parted(msgspec.Struct, frozen=True, tag_field="version", tag=2):
    """A manifest in parts: the digests of blobs that each hold a JSON list of entries."""

    parts: tuple[str, ...]


class Tree(msgspec.Struct, frozen=True):
    """All entries of a snapshot, sorted by path."""

    entries: tuple[Entry, ...]
    parts: tuple[str, ...]
    """The digests of the parts of its manifest; none when that is whole."""


_MANIFEST: msgspec.json.Decoder[Whole | Parted] = msgspec.json.Decoder(Whole | Parted)
_PART = msgspec.json.Decoder(list[Entry])


def cut(paths: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of every part of a sorted tree.

    A part starts at the paths that a checksum picks: what is added or removed moves no other part's borders.
    """
    starts = [i for i, path in enumerate(paths) if zlib.crc32(path.encode()) % PART_ENTRIES == 0]
    return itertools.pairwise(dict.fromkeys([0, *starts, len(paths)]))


def encode_part(entries: Sequence[Entry]) -> bytes:
    """The bytes of one part."""
    return msgspec.json.encode(entries)


def encode_root(parts: Iterable[str]) -> bytes:
    """The bytes of a manifest in these parts."""
    return msgspec.json.encode(Parted(tuple(parts)))


def put_tree(entries: Iterable[Entry], blobs: "Blobs") -> str:
    """Store a manifest of entries whose files are stored; return its digest."""
    ordered = sorted(entries, key=lambda item: item.path)
    borders = cut([item.path for item in ordered])
    parts = blobs.put_all([encode_part(ordered[start:end]) for start, end in borders])
    return blobs.put(encode_root(parts))  # Last: whoever finds it finds all that it lists.


def read_tree(digest: str, blobs: "Blobs") -> Tree:
    """All entries of a snapshot; raises IntegrityError when its manifest or a part of it is none."""
    manifest = _manifest(digest, blobs)
    parts = part_digests(manifest)
    return Tree(_entries(manifest, parts, blobs), parts)


def changes(before: str, after: str, blobs: "Blobs") -> tuple[list[Entry], list[str]]:
    """The entries of snapshot `after` that are not in `before`, and the paths that only `before` has.

    Parts that both have are not read.
    """
    old, new = _manifest(before, blobs), _manifest(after, blobs)
    shared = set(part_digests(old)).intersection(part_digests(new))
    was, now = (
        {item.path: item for item in _entries(m, [d for d in part_digests(m) if d not in shared], blobs)}
        for m in (old, new)
    )
    return [item for path, item in now.items() if was.get(path) != item], sorted(was.keys() - now.keys())


def part_digests(manifest: Whole | Parted) -> tuple[str, ...]:
    """The digests of its parts; none when it is whole."""
    return manifest.parts if isinstance(manifest, Parted) else ()


def _manifest(digest: str, blobs: "Blobs") -> Whole | Parted:
    return _decode(digest, blobs, _MANIFEST, "a tree manifest of a version that is known here")


def _entries(manifest: Whole | Parted, parts: Iterable[str], blobs: "Blobs") -> tuple[Entry, ...]:
    """All entries of a whole manifest, or those of some parts of one in parts."""
    if isinstance(manifest, Whole):
        return manifest.entries
    from concurrent.futures import ThreadPoolExecutor

    def read(part: str) -> list[Entry]:
        return _decode(part, blobs, _PART, "a part of a tree manifest")

    with ThreadPoolExecutor(_PARALLEL) as pool:
        return tuple(itertools.chain.from_iterable(pool.map(read, parts)))


def _decode(digest: str, blobs: "Blobs", decoder: "msgspec.json.Decoder[T]", what: str) -> T:
    try:
        return decoder.decode(blobs.get(digest))
    except msgspec.DecodeError as error:
        raise IntegrityError(f"snapshot {digest}: not {what}: {error}") from None


def check_paths(tree: Tree, digest: str) -> None:
    """Refuse a manifest with a path outside of the checkout, under a file or link of its own, or twice."""
    taken = {item.path for item in tree.entries}
    for item in tree.entries:
        parts = item.path.split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in item.path:
            raise IntegrityError(f"snapshot {digest}: the path {item.path!r} leaves the checkout")
        above = itertools.accumulate(parts[:-1], lambda folder, part: f"{folder}/{part}")
        if not taken.isdisjoint(above):
            raise IntegrityError(f"snapshot {digest}: the path {item.path!r} is under a file or a link")
    if len(taken) < len(tree.entries):
        raise IntegrityError(f"snapshot {digest}: it names a path twice")
