"""The code that ran, kept by content: a tree manifest of blobs, from which the same bytes come back."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tradewind.errors import IntegrityError
from tradewind.launch.files import File, list_files

if TYPE_CHECKING:
    from tradewind.store import Blobs

_RACY_NS = 50_000_000
"""A file changed this shortly before it was hashed may change again within one clock tick: not cached."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
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


class Cached(msgspec.Struct, frozen=True, array_like=True):
    """A file's digest and the identity under which it holds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    digest: str


Cache = dict[str, Cached]


def snapshot(root: Path, blobs: "Blobs", cache_dir: Path | None = None) -> str:
    """Store the project's files as blobs; return the digest of the tree manifest.

    Equal content gives equal digests, wherever and whenever it is taken. With `cache_dir`, files that did
    not change since the last snapshot are not read again.
    """
    files = list_files(root)
    cache_path = cache_file(root, cache_dir) if cache_dir else None
    cache = load_cache(cache_path)
    kept: Cache = {}
    entries = [entry(root, file, blobs, cache, kept) for file in files]
    if cache_path and kept != cache:
        save_cache(cache_path, kept)
    return blobs.put(msgspec.json.encode(Tree(1, tuple(entries))))


def entry(root: Path, file: File, blobs: "Blobs", cache: Cache, kept: Cache) -> Entry:
    """One file's manifest entry, its bytes stored unless the cache says that they are."""
    if file.is_link:
        return Entry(file.path, link=os.readlink(root / file.path))
    known = cache.get(file.path)
    now = Cached(file.size, file.mtime_ns, file.ctime_ns, file.inode, known.digest if known else "")
    if known is None or known != now or not blobs.has(known.digest):
        seen_ns = time.time_ns()
        now = msgspec.structs.replace(now, digest=blobs.put_file(root / file.path))
        if file.ctime_ns < seen_ns - _RACY_NS:
            kept[file.path] = now
    else:
        kept[file.path] = now
    return Entry(file.path, now.digest, file.size, file.executable)


def checkout(digest: str, blobs: "Blobs", dest: Path) -> Tree:
    """Write a snapshot's files under `dest`, every one verified against its digest.

    Raises IntegrityError when stored bytes are damaged or a path would leave `dest`.
    """
    tree = read_tree(digest, blobs)
    for item in tree.entries:
        target = dest / item.path
        check_inside(item.path, digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        if item.link is not None:
            target.symlink_to(item.link)
            continue
        blobs.fetch(item.digest, target)
        os.chmod(target, 0o755 if item.executable else 0o644)
    return tree


def read_tree(digest: str, blobs: "Blobs") -> Tree:
    """A snapshot's manifest."""
    try:
        return msgspec.json.decode(blobs.get(digest), type=Tree)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"snapshot {digest}: not a tree manifest: {error}") from None


def check_inside(path: str, digest: str) -> None:
    """Refuse a manifest path that would be written outside of the checkout."""
    if path.startswith("/") or ".." in Path(path).parts:
        raise IntegrityError(f"snapshot {digest}: the path {path!r} leaves the checkout")


def differences(old: Tree, new: Tree) -> Iterable[str]:
    """Paths that differ between two trees."""
    before, after = ({e.path: e for e in tree.entries} for tree in (old, new))
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


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


def save_cache(path: Path, cache: Cache) -> None:
    """Remember digests, atomically; losing them costs only time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(msgspec.msgpack.encode(cache))
    part.replace(path)
