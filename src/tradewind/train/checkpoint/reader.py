"""Read checkpoints, for any number of workers, refusing what is not whole."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint import parts, sums
from tradewind.train.checkpoint.assemble import Reader, Wanted, cover, finished, wanted
from tradewind.train.checkpoint.copying import raw
from tradewind.train.checkpoint.fetch import Check, Source, everything, fetch, nothing_else
from tradewind.train.checkpoint.loaded import Loaded
from tradewind.train.checkpoint.manifest import Manifest, read_manifest
from tradewind.train.checkpoint.tensorfile import Located, head_size, parse
from tradewind.train.checkpoint.tree import Flattener, Tensors, decode

_PREFIX = "step-"
Stored = dict[str, list[tuple[str, Located]]]
"""Of every tensor, the files that have pieces of it, and where."""


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"{_PREFIX}{step:012d}"


def numbered(root: Path) -> dict[int, Path]:
    """Committed checkpoints by step, whole or not."""
    found = {}
    for folder in root.glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX)
        if number.isdecimal() and folder.is_dir():
            found[int(number)] = folder
    return found


def steps(root: Path) -> list[int]:
    """Steps that have a committed checkpoint, oldest first, whole or not."""
    return sorted(numbered(root))


def latest(root: Path, on_damaged: Callable[[Path, IntegrityError], None] | None = None) -> Path | None:
    """The newest whole checkpoint; damaged ones are passed over, after `on_damaged` was told."""
    for folder in reversed([folder_of(root, step) for step in steps(root)]):
        try:
            verify(folder)
        except IntegrityError as error:
            if on_damaged is not None:
                on_damaged(folder, error)
            continue
        return folder
    return None


def verify(folder: Path) -> Manifest:
    """Read and check every byte; an IntegrityError names the file that is not as it was written."""
    files = Files(folder)
    fetch(files.sources.values(), everything)
    return files.manifest


def load(
    folder: Path,
    rank: int = 0,
    *,
    world: int | None = None,
    mesh: Any = None,
    check: Literal["all", "read", "together"] = "all",
    into: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> Loaded:
    """The verified content for one rank, whatever number of workers wrote it; in host memory.

    `world` is the number of workers that load (as many as saved when left out), and `Rows` are cut for
    them: the same number gets the same rows, another the even cut of `torch.chunk`. DTensors come back
    on the one-dimensional `mesh`, whole tensors without one. Of what is cut only the chunks with rows
    of this rank are read. `own` is rank 0's for a rank that the checkpoint never had.

    Every byte of every file is checked, or with `check="read"` those that are read. With "together" the `world`
    workers that load, each for its rank, check every byte among them: whole is what none of them refuses.

    `into` is a `shared` and an `own` as they were saved, of the present. Tensors of theirs that have the place, dtype
    and shape of one that is loaded get its values, and stand in what is returned: fresh memory takes longer to get
    than a checkpoint to read. After an IntegrityError some of them may have values of what was refused.
    """
    files = Files(folder)
    owner = rank if rank < files.manifest.world else 0
    tree = files.tree(parts.SHARED_TREE)
    own_tree = files.tree(parts.own_name(owner, "json"))
    shared = files.stored(lambda name: name.startswith("shared-"))
    own = files.stored(lambda name: name == parts.own_name(owner, "safetensors"))
    saved = files.manifest.world
    reader = Reader(
        rank=rank,
        world=world or saved,
        mesh=mesh,
        held=_held(shared, parts.part_name(rank, saved)) if world in (None, saved) else {},
    )
    present, mine = (_tensors_of(state) for state in into)
    values = [
        (want, files.ask(want, shared.get(want.name, []), present))
        for want in wanted(tree, _pieces(shared), reader)
    ]
    own_values = {name: files.ask(_whole(name, found), found, mine) for name, found in own.items()}
    checks = {"all": everything, "read": nothing_else, "together": _share_of(rank, reader.world)}
    fetch(files.sources.values(), checks[check], turn=rank % reader.world / reader.world)
    return Loaded(
        step=files.manifest.step,
        world=saved,
        shared=decode(tree, {want.name: finished(want, local, mesh) for want, local in values}),
        own=decode(own_tree, own_values),
    )


def _tensors_of(state: Mapping[str, Any]) -> Tensors:
    """Those in host memory that can be filled where they are, by the names that a tree gives them."""
    flattener = Flattener()
    flattener.encode(dict(state))
    return {
        name: tensor.detach()
        for name, tensor in flattener.tensors.items()
        if name not in flattener.places and tensor.device.type == "cpu" and tensor.is_contiguous()
    }


def _share_of(rank: int, world: int) -> Check:
    """What one of the workers that load together checks of what it does not read."""
    readers = {parts.own_name(other, "safetensors"): other for other in range(world)}

    def check(source: Source, number: int) -> bool:
        return readers.get(source.path.name, number % world) == rank

    return check


def _pieces(stored: Stored) -> dict[str, list[Any]]:
    return {name: [located.piece for _, located in found] for name, found in stored.items()}


def _whole(name: str, found: list[tuple[str, Located]]) -> Wanted:
    piece = found[0][1].piece
    return Wanted(name, piece.dtype, piece.shape)


def _held(stored: Stored, part: str) -> dict[str, tuple[int, int]]:
    return {name: it.piece.rows for name, found in stored.items() for file, it in found if file == part}


class Files:
    """The files of one checkpoint, and what is wanted of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.sources = {
            name: Source(folder / name, entry["size"], self.manifest.sums_of(name))
            for name, entry in self.manifest.files.items()
        }

    def _first(self, name: str, size: int) -> bytes:
        """The verified first bytes of a file."""
        if name not in self.sources:
            raise IntegrityError(f"{self.folder} is damaged: its manifest has no {name}")
        known = self.sources[name]
        data = bytearray(min(size, known.size))
        fetch([Source(known.path, known.size, known.expected, [(0, memoryview(data))])])
        return bytes(data)

    def tree(self, name: str) -> Any:
        """A JSON file's content."""
        return json.loads(self._first(name, 1 << 62))

    def stored(self, of_interest: Callable[[str], bool]) -> Stored:
        """The pieces in the safetensors files of interest, by tensor."""
        found: Stored = {}
        for name, source in self.sources.items():
            if name.endswith(".safetensors") and of_interest(name):
                head = self._first(name, sums.CHUNK)
                length = head_size(head, source.path)
                head = head[:length] if length <= len(head) else self._first(name, length)
                for located in parse(head, source.size, source.path):
                    found.setdefault(located.piece.name, []).append((name, located))
        return found

    def ask(self, want: Wanted, found: list[tuple[str, Located]], present: Tensors) -> torch.Tensor:
        """A tensor that `fetch` will fill with the wanted rows: one that is present, where it fits."""
        there = present.get(want.name)
        if there is None or want.rest is not None or (there.dtype, there.shape) != (want.dtype, want.shape):
            there = torch.empty(want.shape, dtype=want.dtype)
        local = there
        by_piece = {it.piece: (name, it.offset) for name, it in found}
        row = local.nbytes // local.shape[0] if local.ndim and local.shape[0] else local.nbytes
        for piece, first, stop in cover(want, by_piece):
            name, offset = by_piece[piece]
            begin = offset + (first - piece.rows[0]) * row
            target = raw(local)[(first - want.start) * row : (stop - want.start) * row]
            if len(target):
                self.sources[name].ranges.append((begin, target.data))
        return local
