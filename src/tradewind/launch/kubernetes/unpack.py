"""Lays a run's code out in a pod. It travels beside the code and is run by whatever Python the image has:
standard library only, Python 3.9 and later.

usage: python unpack.py PARTS DEST CHECKPOINTS [ELSEWHERE]

PARTS is a folder that holds `snapshot.json` and the parts that it names. Parts, in order, make layers; a
layer, inflated, is 8 bytes of length (big endian), so many bytes of JSON - a list of
`[path, kind, size or link]` with the kinds `file`, `exec`, `link` and `gone` - and then the files' bytes. Later
layers win. What comes out must have the digest of the snapshot, or nothing is written. CHECKPOINTS is made
beside it, as a folder or as a link to ELSEWHERE.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

FILE, EXEC, LINK, GONE = "file", "exec", "link", "gone"
PART_ENTRIES = 64
"""As in `tradewind.launch.tree`, from which nothing can be imported here."""

Files = dict[str, tuple[str, bytes]]
"""Path -> its kind, and its bytes or where it points."""


class Refused(Exception):
    """The parts are not what the run was submitted with."""


def main(parts: str, dest: str, checkpoints: str, elsewhere: str = "") -> int:
    """Unpack and say so; 65, which no retry mends, when the parts are refused."""
    try:
        with open(os.path.join(parts, "snapshot.json"), encoding="utf-8") as file:
            about = json.load(file)
        count = unpack(about, parts, dest)
    except Refused as error:
        print(f"tradewind: the code cannot be laid out: {error}", file=sys.stderr)
        return 65
    make_checkpoints(checkpoints, elsewhere)
    print(f"tradewind: laid out {count} files of {about['digest']}")
    return 0


def unpack(about: Mapping[str, Any], parts: str, dest: str) -> int:
    """Write the snapshot that `about` describes under `dest`; return how many paths it has."""
    tree: Files = {}
    for layer in about["layers"]:
        tree = merge(tree, inflate(read_parts(layer, parts), about["max_bytes"]))
    check_paths(tree)
    found = digests_of(tree)
    if about["digest"] not in found:
        raise Refused("it is {} and should be {}; submit the run again".format(found[0], about["digest"]))
    write(tree, dest)
    return len(tree)


def read_parts(names: Iterable[str], folder: str) -> bytes:
    """The bytes of one layer; every part's name ends with the start of its digest."""
    found = []
    for name in names:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
        except OSError as error:
            raise Refused(f"part {name} cannot be read: {error}") from None
        if not name.endswith("-" + hashlib.sha256(data).hexdigest()[:32]):
            raise Refused(f"part {name} is damaged; delete its ConfigMap and submit the run again")
        found.append(data)
    return b"".join(found)


def inflate(data: bytes, limit: int) -> bytes:
    """The layer's bytes; at most `limit` of them."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise Refused(f"a layer is damaged: {error}") from None
    if len(found) > limit or not stream.eof:
        raise Refused(f"a layer is cut short or inflates to over {limit} bytes")
    return found


def merge(tree: Files, layer: bytes) -> Files:
    """`tree` with a layer laid over it: path -> (kind, bytes)."""
    start = 8 + int.from_bytes(layer[:8], "big")
    try:
        entries = json.loads(layer[8:start].decode("utf-8"))
    except ValueError as error:
        raise Refused(f"a layer has no list of files: {error}") from None
    tree = dict(tree)
    for path, kind, about in entries:
        if kind == GONE:
            tree.pop(path, None)
        elif kind == LINK:
            tree[path] = (kind, about.encode("utf-8"))
        elif kind in (FILE, EXEC):
            tree[path] = (kind, layer[start : start + about])
            start += about
        else:
            raise Refused(f"{path!r} is of an unknown kind, {kind!r}")
    if start != len(layer):
        raise Refused(f"a layer holds {len(layer)} bytes and lists {start}")
    return tree


def check_paths(tree: Files) -> None:
    """Refuse paths that leave the folder, links that point out of it, and anything below a file or a link."""
    for path, (kind, data) in tree.items():
        parts = path.split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in path:
            raise Refused(f"the path {path!r} leaves the folder")
        if any(above in tree for above in itertools.accumulate(parts[:-1], "{}/{}".format)):
            raise Refused(f"the path {path!r} is under a file or a link")
        if kind == LINK and leaves(path, data.decode("utf-8")):
            raise Refused(f"the link {path!r} points out of the folder")


def leaves(path: str, target: str) -> bool:
    """Whether a link at `path` may lead out of the folder.

    `..` counts only at its start: later in it, what a folder's parent is depends on other links.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = sum(1 for _ in itertools.takewhile("..".__eq__, parts))
    return target.startswith("/") or "\0" in target or up > path.count("/") or ".." in parts[up:]


def digests_of(tree: Files) -> list[str]:
    """The digests of the snapshot's manifest, byte for byte as it was written when it was taken.

    The first is that of a manifest in parts, the second that of a whole one, as older snapshots have.
    """
    entries = [entry(path, *tree[path]) for path in sorted(tree)]
    parts: list[list[dict[str, Any]]] = []
    for item in entries:
        if not parts or zlib.crc32(item["path"].encode("utf-8")) % PART_ENTRIES == 0:
            parts.append([])
        parts[-1].append(item)
    listed = [digest_of(part) for part in parts]
    return [digest_of({"version": 2, "parts": listed}), digest_of({"version": 1, "entries": entries})]


def digest_of(value: Any) -> str:
    """The digest of a value as JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode("utf-8")).hexdigest()


def entry(path: str, kind: str, data: bytes) -> dict[str, Any]:
    """One line of the manifest; fields that say nothing are left out."""
    if kind == LINK:
        return {"path": path, "link": data.decode("utf-8")}
    found: dict[str, Any] = {"path": path, "digest": "sha256:" + hashlib.sha256(data).hexdigest()}
    if data:
        found["size"] = len(data)
    if kind == EXEC:
        found["executable"] = True
    return found


def write(tree: Files, dest: str) -> None:
    """Write everything under `dest`, links last, so that nothing is ever written through one.

    A folder that holds files of an earlier try is emptied of them first: an init step may run again.
    """
    for path in sorted(tree, key=lambda path: (tree[path][0] == LINK, path)):
        kind, data = tree[path]
        target = os.path.join(dest, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.lexists(target):
            os.unlink(target)
        if kind == LINK:
            os.symlink(data.decode("utf-8"), target)
            continue
        mode = 0o755 if kind == EXEC else 0o644
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)


def make_checkpoints(folder: str, elsewhere: str) -> None:
    """The run's checkpoint folder: a new one, or a link to the one on a volume, which is made if need be."""
    if not elsewhere:
        os.makedirs(folder, exist_ok=True)
        return
    os.makedirs(elsewhere, exist_ok=True)
    if not os.path.lexists(folder):
        os.symlink(elsewhere, folder)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
