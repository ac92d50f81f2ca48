"""The code that ran, kept by content: a tree manifest of blobs, from which the same bytes come back."""

import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tradewind.errors import IntegrityError
from tradewind.launch.file import File
from tradewind.launch.files import list_files

if TYPE_CHECKING:
    from tradewind.store import Blobs

_RACY_NS = 50_000_000
_PARALLEL = 8


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One path of a tree: a file (`digest`, `size`, `executable`) or a symbolic link (`link`)."""

    path: str
    digest: str = ""
    size: int = 0
    executable: bool = False
    link: str | None = None


class Tree(msgspec.Struct, frozen=True):
    """A snapshot's manifest."""

    version: int
    entries: tuple[Entry, ...]


class Cached(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file's digest and the identity under which it holds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    digest: str

    @classmethod
    def of(cls, file: File, digest: str) -> "Cached":
        """What is remembered of `file`."""
        return cls(file.size, file.mtime_ns, file.ctime_ns, file.inode, digest)


Cache = dict[str, Cached]


def snapshot(root: Path, blobs: "Blobs", cache_dir: Path | None = None) -> str:
    """Store the project's files as blobs; return the digest of the tree manifest.

    Equal content gives equal digests, wherever and whenever it is taken. With `cache_dir`, files that did
    not change since the last snapshot are not read again.
    """
    files = list_files(root)
    cache_path = cache_file(root, cache_dir) if cache_dir else None
    cache = load_cache(cache_path)
    known = {f.path: d for f in files if f.link is None and (d := cached_digest(f, cache))}
    lost = blobs.lacking(set(known.values()))
    if lost:
        known = {path: digest for path, digest in known.items() if digest not in lost}
    new = [f for f in files if f.link is None and f.path not in known]
    seen_ns = time.time_ns()
    known |= zip((f.path for f in new), blobs.put_files([root / f.path for f in new]), strict=True)
    if cache_path and (new or len(known) != len(cache)):
        save_cache(cache_path, files, known, seen_ns)
    entries = tuple(entry(file, known.get(file.path, "")) for file in files)
    return blobs.put(msgspec.json.encode(Tree(1, entries)))


def cached_digest(file: File, cache: Cache) -> str | None:
    """The digest of a file that did not change since it was last read."""
    found = cache.get(file.path)
    if found is None or (found.size, found.mtime_ns, found.ctime_ns, found.inode) != (
        file.size,
        file.mtime_ns,
        file.ctime_ns,
        file.inode,
    ):
        return None
    return found.digest


def entry(file: File, digest: str) -> Entry:
    """One file's line of the manifest."""
    if file.link is not None:
        return Entry(file.path, link=file.link)
    return Entry(file.path, digest, file.size, file.executable)


def checkout(digest: str, blobs: "Blobs", dest: Path) -> Tree:
    """Write a snapshot's files under `dest`, every one verified against its digest.

    Raises IntegrityError when stored bytes are damaged or a path would leave `dest`.
    """
    tree = read_tree(digest, blobs)
    check_paths(tree, digest)
    for folder in sorted({os.path.dirname(item.path) for item in tree.entries}):
        os.makedirs(dest / folder, exist_ok=True)

    def restore_share(first: int) -> None:
        for item in tree.entries[first::_PARALLEL]:
            restore(item, blobs, f"{dest}/{item.path}")

    with ThreadPoolExecutor(_PARALLEL) as pool:
        for _ in pool.map(restore_share, range(_PARALLEL)):
            pass
    return tree


def restore(item: Entry, blobs: "Blobs", target: str) -> None:
    """Write one path of a tree."""
    if item.link is not None:
        os.symlink(item.link, target)
        return
    # Not `blobs.fetch`: it flushes every file to disk, and a checkout can be made again.
    with open(target, "xb") as file:
        file.write(blobs.get(item.digest))
    if item.executable:
        os.chmod(target, 0o755)


def read_tree(digest: str, blobs: "Blobs") -> Tree:
    """A snapshot's manifest."""
    try:
        return msgspec.json.decode(blobs.get(digest), type=Tree)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"snapshot {digest}: not a tree manifest: {error}") from None


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


def cache_file(root: Path, cache_dir: Path) -> Path:
    """Where the digests of `root`'s files are remembered."""
    return cache_dir / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.msgpack"


def load_cache(path: Path | None) -> Cache:
    """The remembered digests; nothing when there are none or they cannot be read."""
    if path is None or not path.exists():
        return {}
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Cache)
    except msgspec.DecodeError:
        return {}


def save_cache(path: Path, files: Iterable[File], digests: Mapping[str, str], seen_ns: int) -> None:
    """Remember digests, atomically; losing them costs only time.

    A file changed just before it was read (at `seen_ns`) may change again within one tick of the clock
    and look the same: it is not remembered.
    """
    cache = {
        f.path: Cached.of(f, digests[f.path])
        for f in files
        if f.path in digests and f.ctime_ns < seen_ns - _RACY_NS
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(msgspec.msgpack.encode(cache))
    part.replace(path)
