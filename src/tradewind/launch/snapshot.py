"""The code that ran, kept by content: a tree manifest of blobs, from which the same bytes come back."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tradewind.launch.file import File
from tradewind.launch.files import list_files
from tradewind.launch.plan import Plan, survey
from tradewind.launch.recall import Memory, Part, Stored, known_digests, known_parts, load, memory_file, save
from tradewind.launch.tree import Entry, Tree, check_paths, cut, encode_part, encode_root, read_tree
from tradewind.spec import RunSpec
from tradewind.store.blobs import digest_of

if TYPE_CHECKING:
    from tradewind.store import Blobs

_PARALLEL = 8

T = TypeVar("T")


def snapshot(
    root: Path, blobs: "Blobs", cache_dir: Path | None = None, files: Sequence[File] | None = None
) -> str:
    """Store the project's files as blobs; return the digest of the tree manifest.

    Equal content gives equal digests, wherever and whenever it is taken. With `cache_dir`, files that did
    not change since the last snapshot are not read again. `files` is what `list_files(root)` has just found.
    """
    find = alongside(list_files, root) if files is None else lambda: files
    path = memory_file(root, cache_dir) if cache_dir else None
    memory = load(path) if path else Memory()
    lost = blobs.lacking({*memory.digests, *(part.digest for part in memory.parts)} - {""})
    found = find()
    known = known_digests(found, memory, lost)
    seen_ns = time.time_ns()
    digests = put_unknown(root, found, known, blobs)
    parts = put_parts(found, known, digests, known_parts(memory, lost), blobs)
    if path and (parts != memory.parts or digests != known):
        save(path, found, digests, parts, seen_ns)
    return blobs.put(encode_root(part.digest for part in parts))


def snapshot_of(
    spec: RunSpec, blobs: "Blobs | None" = None, cwd: Path | None = None, *, elsewhere: bool = False
) -> tuple[Plan, str, "Blobs"]:
    """What a spec comes to, the digest of its code's snapshot, and where that is: in `blobs`, or Tradewind's own.

    Raises SpecError for what is wrong in the spec; `elsewhere` as for `plan`.
    """
    from tradewind.store import home, open_blobs

    worked_out, files = survey(spec, cwd, elsewhere=elsewhere)
    blobs = blobs or open_blobs()
    return worked_out, snapshot(Path(worked_out.root), blobs, home() / "cache" / "snapshot", files), blobs


def alongside(function: Callable[..., T], *args: object) -> Callable[[], T]:
    """Start a call in a thread; what is returned waits for its result, or raises what it raised."""
    results: list[T] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            results.append(function(*args))
        except Exception as error:  # noqa: BLE001 - whoever waits for the result sees it
            errors.append(error)

    def wait() -> T:
        thread.join()
        for error in errors:
            raise error
        return results[0]

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return wait


def put_unknown(root: Path, files: Sequence[File], known: Sequence[str], blobs: "Blobs") -> list[str]:
    """Store the files whose digest is not known; the digests of all, "" for links."""
    new = {file.path for file, digest in zip(files, known, strict=True) if not digest and file.link is None}
    stored = iter(blobs.put_files([root / file.path for file in files if file.path in new]))
    return [next(stored) if file.path in new else digest for file, digest in zip(files, known, strict=True)]


def put_parts(
    files: Sequence[File], known: Sequence[str], digests: Sequence[str], stored: Stored, blobs: "Blobs"
) -> tuple[Part, ...]:
    """The parts of the manifest, in order; those that are not as they were are encoded and stored."""
    parts, fresh = [], []
    for start, end in cut([file.path for file in files]):
        mine, same = tuple(files[start:end]), known[start:end] == digests[start:end]
        was, part = stored.get(mine[0].path, ((), None))
        if part is None or was != mine or not same:
            data = encode_part([entry(*pair) for pair in zip(mine, digests[start:end], strict=True)])
            fresh.append(data)
            part = Part(end - start, digest_of(data))
        parts.append(part)
    blobs.put_all(fresh)
    return tuple(parts)


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

    from concurrent.futures import ThreadPoolExecutor

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
