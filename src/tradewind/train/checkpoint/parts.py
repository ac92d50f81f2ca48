"""Who stores what: the files of each rank, and the division of what all ranks hold alike."""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from tradewind.train.checkpoint.tensorfile import Piece
from tradewind.train.checkpoint.tree import Flattener, Tensors, to_json

SHARED_TREE = "shared.json"
_SMALLEST_PART = 1 << 20
_SMALLEST_SLICE = 256 << 10
"""Less is not worth a file, or a key in it, of its own."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A training process's place among all, and among those of its host."""

    rank: int
    world: int
    local_rank: int
    local_world: int


def part_name(part: int, world: int) -> str:
    """The file of the shared tensors that rank `part` of `world` writes."""
    return f"shared-{part:05d}-of-{world:05d}.safetensors"


def own_name(rank: int, kind: str) -> str:
    """The file of a rank's own state: its `json` or its `safetensors`."""
    return f"rank{rank:05d}.{kind}"


def whole_pieces(tensors: Tensors) -> list[Piece]:
    """Every tensor as one piece."""
    return [Piece(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]


def divide(pieces: Iterable[Piece], count: int) -> list[list[Piece]]:
    """Cut whole tensors into at most `count` parts of about equal bytes, the same on every rank.

    A tensor that is large beside a part is cut into slices of rows; all others stay whole.
    """
    known = list(pieces)
    total = sum(piece.nbytes for piece in known)
    used = max(1, min(count, total // _SMALLEST_PART))
    limit = max(_SMALLEST_SLICE, total // (4 * used)) if used > 1 else total
    slices = [part for piece in known for part in _slices(piece, limit)]
    parts: list[list[Piece]] = [[] for _ in range(count)]
    heap = [(0, index) for index in range(used)]
    # The largest first, each to the part that has least: within a slice's size of equal.
    for piece in sorted(slices, key=lambda piece: (-piece.nbytes, piece.key)):
        load, index = heapq.heappop(heap)
        parts[index].append(piece)
        heapq.heappush(heap, (load + piece.nbytes, index))
    return parts


def _slices(piece: Piece, limit: int) -> list[Piece]:
    if piece.nbytes <= limit or not piece.shape or piece.shape[0] == 1:
        return [piece]
    rows = piece.shape[0]
    each = max(1, limit * rows // piece.nbytes)
    return [
        Piece(piece.name, piece.dtype, (min(each, rows - start), *piece.shape[1:]), start)
        for start in range(0, rows, each)
    ]


def stored_by(worker: Worker, shared: Flattener) -> dict[str, list[Piece]]:
    """The files of shared tensors that a worker stages, by name; a rank writes the one named after it.

    The workers of a host have every part of what all hold alike between them, and each has its own
    part of what is cut over the workers.
    """
    alike = {name: tensor for name, tensor in shared.tensors.items() if name not in shared.places}
    parts = divide(whole_pieces(alike), worker.world)
    parts[worker.rank] = parts[worker.rank] + _held(shared)
    return {
        part_name(index, worker.world): pieces
        for index, pieces in enumerate(parts)
        if pieces and (index == worker.rank or index % worker.local_world == worker.local_rank)
    }


def _held(shared: Flattener) -> list[Piece]:
    return [
        Piece(name, shared.tensors[name].dtype, tuple(shared.tensors[name].shape), place.start)
        for name, place in shared.places.items()
    ]


def digest(shared: Flattener) -> str:
    """What all ranks must have in common: the names, types and whole shapes of the shared tensors."""
    described = []
    for name, tensor in shared.tensors.items():
        place = shared.places.get(name)
        shape = place.shape if place else tuple(tensor.shape)
        described.append([name, str(tensor.dtype), list(shape), place is not None])
    return hashlib.sha256(to_json(described)).hexdigest()[:16]


def source(piece: Piece, tensors: Tensors) -> torch.Tensor:
    """The data of a piece, in the state it was taken from."""
    tensor = tensors[piece.name]
    if piece.start is None or tensor.shape == piece.shape:
        return tensor
    return tensor[piece.start : piece.start + piece.shape[0]]


def writes(rank: int, world: int, name: str) -> bool:
    """Whether a file is one that this rank writes to disk."""
    if name == SHARED_TREE:
        return rank == 0
    return name == part_name(rank, world) or name.startswith(own_name(rank, ""))
