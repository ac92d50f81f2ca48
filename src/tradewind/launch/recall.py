"""What the last snapshot of a project found, so that the next one reads only what changed since."""

import hashlib
import itertools
import os
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from tradewind.launch.file import File

_RACY_NS = 50_000_000


class Part(NamedTuple):
    """A part of the manifest: how many entries it has, and its digest."""

    length: int
    digest: str


Stored = Mapping[str, tuple[tuple[File, ...], Part]]
"""Parts that are stored, with the files that they list, by the path of the first of these."""


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """One snapshot: its files sorted by path, with the digest of each, and the parts of its manifest."""

    format: Literal[2] = 2
    files: tuple[File, ...] = ()
    digests: tuple[str, ...] = ()
    """"" for a link, and for a file that may yet change and look the same."""
    parts: tuple[Part, ...] = ()


def memory_file(root: Path, folder: Path) -> Path:
    """Where what was found in `root` is remembered."""
    return folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.msgpack"


def load(path: Path) -> Memory:
    """What is remembered; nothing when that cannot be read."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Memory)
    except (FileNotFoundError, msgspec.DecodeError):
        return Memory()


def save(
    path: Path, files: Iterable[File], digests: Iterable[str], parts: Iterable[Part], seen_ns: int
) -> None:
    """Remember a snapshot, atomically; losing it costs only time.

    A file changed just before it was read (at `seen_ns`) may change again within one tick of the clock
    and look the same: its digest is not remembered.
    """
    files = tuple(files)
    calm_ns = seen_ns - _RACY_NS
    calm = tuple(
        digest if file.ctime_ns < calm_ns else "" for file, digest in zip(files, digests, strict=True)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    aside.write_bytes(msgspec.msgpack.encode(Memory(2, files, calm, tuple(parts))))
    path.unlink(missing_ok=True)  # Renamed over another file, ext4 would write it out first.
    aside.replace(path)


def known_digests(files: Sequence[File], memory: Memory, lost: Collection[str]) -> list[str]:
    """The digest of every file that did not change since it was last read; "" for links and all others."""
    if [file.path for file in files] == [file.path for file in memory.files]:
        pairs = zip(files, memory.files, memory.digests, strict=True)
        known = [digest if file == was else "" for file, was, digest in pairs]
    else:
        before = dict(zip(memory.files, memory.digests, strict=True))
        known = [before.get(file, "") for file in files]
    return ["" if digest in lost else digest for digest in known] if lost else known


def known_parts(memory: Memory, lost: Collection[str]) -> Stored:
    """The parts of the last manifest that are still stored."""
    ends = itertools.accumulate(part.length for part in memory.parts)
    found = (
        (memory.files[end - part.length : end], part) for part, end in zip(memory.parts, ends, strict=True)
    )
    return {files[0].path: (files, part) for files, part in found if part.digest not in lost}
