"""What a disk may hold after a crash, given the operations that led up to it.

After a SIGKILL the kernel still has everything: the state is that of the operations so far, the
last write perhaps in part. After a loss of power only what was flushed is sure. Two file systems
are played, both weaker than what an application may hope for and no weaker than real ones:

- `journal`: like ext4 with ordered data. Names change in order, any flush makes all names before
  it durable, and of those after it some first part survives.
- `strict`: only what POSIX promises. A file's flush keeps that file's bytes, a folder's flush keeps
  that folder's names; of names that were not flushed each folder keeps a first part of its own.

Bytes that were not flushed survive whole, in part by blocks, as zeros in a file of the right length,
or not at all. The method is that of ALICE (Pillai et al., OSDI 2014) and CrashMonkey (Mohan et al.,
OSDI 2018): record once, then visit the states.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults.record import Op

BLOCK = 4096
Tree = dict[str, bytes | None]
"""Files by path with their bytes, folders with None."""


@dataclass(eq=False)
class File:
    """Bytes that are durable, and changes since: `(offset, data)`, or `(size, None)` for a truncation."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def current(self) -> bytes:
        return _changed(self.durable, self.pending)


@dataclass(eq=False)
class Folder:
    """Names that are durable, and changes since, each with its number in the order of all operations."""

    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[tuple[int, dict[str, "File | Folder | None"]]] = field(default_factory=list)

    def upto(self, number: float) -> dict[str, "File | Folder"]:
        """The names once the changes before `number` are made."""
        names: dict[str, File | Folder | None] = dict(self.durable)
        for when, change in self.pending:
            if when < number:
                names |= change
        return {name: node for name, node in names.items() if node is not None}

    def current(self) -> dict[str, "File | Folder"]:
        return self.upto(float("inf"))


class Disk:
    """A folder on a disk, brought forward one operation at a time."""

    def __init__(self, start: Tree, *, journal: bool) -> None:
        self.root = Folder()
        self.journal = journal
        self._number = 0
        for path in sorted(start):
            data = start[path]
            parent, name = self._parent(path)
            parent.durable[name] = Folder() if data is None else File(data)

    def apply(self, op: Op) -> None:
        """Let one operation take effect."""
        self._number += 1
        match op.kind:
            case "create":
                self._enter(op.path, File())
            case "mkdir":
                self._enter(op.path, Folder())
            case "link":
                self._enter(op.to, self._node(op.path))
            case "unlink" | "rmdir":
                self._enter(op.path, None)
            case "rename":
                self._rename(op.path, op.to)
            case "write":
                self._file(op.path).pending.append((op.offset, op.data))
            case "truncate":
                self._file(op.path).pending.append((op.offset, None))
            case "sync":
                self._sync(self._node(op.path))

    def killed(self) -> Tree:
        """What is there when only the process died."""
        return _tree(self.root.current(), Folder.current, File.current)

    def killed_in(self, part: Op) -> Tree:
        """What is there when the process died in a write of which this part was done."""
        file = self._file(part.path)
        file.pending.append((part.offset, part.data))
        tree = self.killed()
        file.pending.pop()
        return tree

    def flushed(self) -> Tree:
        """What is there when the power failed and nothing survived that was not flushed."""
        return _tree(self.root.durable, lambda folder: folder.durable, lambda file: file.durable)

    def named(self) -> Tree:
        """Power failed: all names and lengths survived, and none of the bytes that were not flushed."""
        return _tree(self.root.current(), Folder.current, _zeros)

    def survived(self, rng: random.Random) -> Tree:
        """Power failed: some of what was not flushed survived, drawn at random."""
        horizon = self._horizon(rng)

        def names(folder: Folder) -> dict[str, File | Folder]:
            return folder.upto(horizon if self.journal else self._horizon(rng, folder))

        return _tree(names(self.root), names, lambda file: _survivor(file, rng))

    def _horizon(self, rng: random.Random, folder: Folder | None = None) -> float:
        pending = [when for f in ([folder] if folder else self._folders(self.root)) for when, _ in f.pending]
        return rng.choice([*pending, self._number + 1])

    def _folders(self, folder: Folder) -> Iterator[Folder]:
        yield folder
        for node in folder.current().values():
            if isinstance(node, Folder):
                yield from self._folders(node)

    def _sync(self, node: "File | Folder") -> None:
        if isinstance(node, File):
            node.durable, node.pending = node.current(), []
        for folder in self._folders(self.root) if self.journal else [node]:
            if isinstance(folder, Folder):
                folder.durable, folder.pending = folder.current(), []

    def _rename(self, old: str, new: str) -> None:
        node = self._node(old)
        source, name = self._parent(old)
        target, new_name = self._parent(new)
        if source is target:
            source.pending.append((self._number, {name: None, new_name: node}))
        else:
            source.pending.append((self._number, {name: None}))
            target.pending.append((self._number, {new_name: node}))

    def _enter(self, path: str, node: "File | Folder | None") -> None:
        parent, name = self._parent(path)
        parent.pending.append((self._number, {name: node}))

    def _parent(self, path: str) -> tuple[Folder, str]:
        above, _, name = path.rpartition("/")
        node = self._node(above)
        assert isinstance(node, Folder), path
        return node, name

    def _file(self, path: str) -> File:
        node = self._node(path)
        assert isinstance(node, File), path
        return node

    def _node(self, path: str) -> "File | Folder":
        node: File | Folder = self.root
        for name in path.split("/") if path else ():
            assert isinstance(node, Folder), path
            node = node.current()[name]
        return node


def torn(op: Op, rng: random.Random, cuts: int) -> list[Op]:
    """A write as it may stand when the process died in it: some first parts of its bytes."""
    if op.kind != "write" or len(op.data) < 2:
        return []
    whole = len(op.data)
    sizes = {rng.randrange(1, whole) for _ in range(min(cuts, whole // 512 + 1))}
    return [Op("write", op.path, offset=op.offset, data=op.data[:size]) for size in sorted(sizes)]


def power_cuts(disk: Disk, rng: random.Random, draws: int) -> list[Tree]:
    """States after a loss of power: the two extremes, and some drawn at random."""
    return [disk.flushed(), disk.named(), *(disk.survived(rng) for _ in range(draws))]


def read_tree(root: Path) -> Tree:
    """What is in a folder."""
    return {
        path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }


def write_tree(tree: Tree, root: Path) -> None:
    """Make a folder hold exactly this."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for path in sorted(tree):
        data = tree[path]
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


def _tree(names, folder_names, file_bytes, prefix: str = "") -> Tree:  # type: ignore[no-untyped-def]
    tree: Tree = {}
    for name, node in names.items():
        if isinstance(node, File):
            tree[prefix + name] = file_bytes(node)
        else:
            tree[prefix + name] = None
            tree |= _tree(folder_names(node), folder_names, file_bytes, f"{prefix}{name}/")
    return tree


def _changed(data: bytes, changes: Sequence[tuple[int, bytes | None]]) -> bytes:
    buffer = bytearray(data)
    for offset, piece in changes:
        if piece is None:
            del buffer[offset:]
        end = offset if piece is None else offset + len(piece)
        buffer.extend(bytes(max(0, end - len(buffer))))
        if piece is not None:
            buffer[offset:end] = piece
    return bytes(buffer)


def _zeros(file: File) -> bytes:
    size = len(file.current())
    return file.durable[:size].ljust(size, b"\0")


def _survivor(file: File, rng: random.Random) -> bytes:
    if not file.pending:
        return file.durable
    current, zeros = file.current(), _zeros(file)
    match rng.randrange(4):
        case 0:
            return file.durable
        case 1:
            return current
        case 2:
            return current[: rng.randrange(len(current) + 1)]
    blocks = range(0, len(current), BLOCK)
    return b"".join((current if rng.random() < 0.5 else zeros)[at : at + BLOCK] for at in blocks)
