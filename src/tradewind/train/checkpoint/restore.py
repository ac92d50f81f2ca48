"""State from the images of one host's workers, read where they lie."""

import json
from pathlib import Path
from typing import Any

import torch

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint import image, parts
from tradewind.train.checkpoint.assemble import Reader, Stored, Wanted, cover, finished, wanted
from tradewind.train.checkpoint.loaded import Loaded
from tradewind.train.checkpoint.mapped import Checking, Mapped
from tradewind.train.checkpoint.parts import Worker
from tradewind.train.checkpoint.rows import share_of
from tradewind.train.checkpoint.tensorfile import Piece
from tradewind.train.checkpoint.tree import decode, sharded

Views = dict[str, list[tuple[Piece, torch.Tensor]]]


def restore(images: list[tuple[Path, image.Header]], worker: Worker, mesh: Any) -> tuple[Loaded, Checking]:
    """The content of a complete set of images, for a worker of a world that may have another size."""
    mapped = [Mapped(path, header) for path, header in images]
    checking = Checking(mapped, worker)
    header = mapped[0].header
    mine = _owner(mapped, worker)
    own_tree = _tree(mine, parts.own_name(mine.header.rank, "json"))
    views: Views = {}
    for part in mapped:
        for piece, tensor in part.tensors(own=False):
            views.setdefault(piece.name, []).append((piece, tensor))
    reader = Reader(rank=worker.rank, world=worker.world, mesh=mesh, held=_held(mine, worker))
    own = {piece.name: tensor for piece, tensor in mine.tensors(own=True)}
    loaded = Loaded(
        step=header.step,
        world=header.world,
        shared=_assemble(_tree(mine, parts.SHARED_TREE), views, reader),
        own=decode(own_tree, own),
    )
    return loaded, checking


def ranks_needed(path: Path, header: image.Header, worker: Worker) -> set[int]:
    """Whose images have what a worker of another world needs, by the image of one of those who staged it.

    That of its own rank, and where state is cut over the workers those of the ranks that had its rows, if they were
    dealt out evenly, as `Shard(0)` does.
    """
    needed = {worker.rank} if worker.rank < header.world else set[int]()
    cut = sharded(_tree(Mapped(path, header), parts.SHARED_TREE)).values()
    for total in {said["shape"][0] for said in cut if not said.get("whole")}:
        start, stop = share_of(total, worker.rank, worker.world)
        for rank in range(header.world):
            first, last = share_of(total, rank, header.world)
            if max(first, start) < min(last, stop):
                needed.add(rank)
    return needed


def _owner(mapped: list[Mapped], worker: Worker) -> Mapped:
    for part in mapped:
        if part.header.rank == worker.rank:
            return part
    if worker.rank < mapped[0].header.world:
        raise IntegrityError(f"rank {worker.rank}'s own state of {mapped[0].path.parent} is on another host")
    return mapped[0]  # a rank that the staging world never had


def _held(mine: Mapped, worker: Worker) -> dict[str, tuple[int, int]]:
    if mine.header.world != worker.world:
        return {}
    # Slices of what all hold alike are among these too, and nobody asks for their rows.
    return {piece.name: piece.rows for piece, _ in mine.tensors(own=False)}


def _tree(part: Mapped, name: str) -> Any:
    try:
        return json.loads(part.first(name, 1 << 62))
    except ValueError as error:
        raise IntegrityError(f"{part.path} is damaged: {name} does not parse") from error


def _assemble(tree: Any, views: Views, reader: Reader) -> dict[str, Any]:
    stored: Stored = {name: [piece for piece, _ in pieces] for name, pieces in views.items()}
    values = {
        want.name: finished(want, _joined(want, views.get(want.name, [])), reader.mesh)
        for want in wanted(tree, stored, reader)
    }
    state: dict[str, Any] = decode(tree, values)
    return state


def _joined(want: Wanted, pieces: list[tuple[Piece, torch.Tensor]]) -> torch.Tensor:
    for piece, tensor in pieces:
        if tensor.shape == want.shape and piece.rows == (want.start, want.stop):
            return tensor
    joined = torch.empty(want.shape, dtype=want.dtype)
    data = dict(pieces)
    for piece, first, stop in cover(want, data):
        start = piece.rows[0]
        joined[first - want.start : stop - want.start] = data[piece][first - start : stop - start]
    return joined
