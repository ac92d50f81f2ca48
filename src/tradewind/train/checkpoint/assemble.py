"""Which rows of which tensors a loading rank wants, and which stored pieces have them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tradewind.errors import IntegrityError, TradewindError
from tradewind.train.checkpoint.rows import Rows, share_of
from tradewind.train.checkpoint.tensorfile import DTYPES, Piece
from tradewind.train.checkpoint.tree import sharded


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Who loads: a rank of a world that may have another size than the one that saved."""

    rank: int
    world: int
    mesh: Any = None
    held: Mapping[str, tuple[int, int]]
    """The rows that the same rank of the same world saved, by name; empty when the world is another."""


@dataclass(frozen=True)
class Wanted:
    """Rows from `start` of one tensor, as a tensor of `shape`; `rest` says what to make of it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int = 0
    rest: Mapping[str, Any] | None = None

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + (self.shape[0] if self.shape else 1)


Stored = Mapping[str, list[Piece]]


def wanted(tree: Any, stored: Stored, reader: Reader) -> list[Wanted]:
    """Everything a rank needs for a tree: whole tensors, and its rows of those that are cut."""
    cut = sharded(tree)
    return [
        _wanted_rows(name, cut[name], reader) if name in cut else _wanted_whole(name, stored[name])
        for name in {**stored, **cut}
    ]


def _wanted_whole(name: str, pieces: list[Piece]) -> Wanted:
    last = max(pieces, key=lambda piece: piece.rows)
    shape = last.shape if last.start is None else (last.rows[1], *last.shape[1:])
    return Wanted(name, last.dtype, shape)


def _wanted_rows(name: str, said: Mapping[str, Any], reader: Reader) -> Wanted:
    shape, dtype = tuple(said["shape"]), DTYPES[said["dtype"]]
    if said["kind"] == "$rows":
        start, stop = reader.held.get(name) or _even_rows(name, shape[0], reader)
    elif said.get("whole") or reader.mesh is None:
        return Wanted(name, dtype, shape, 0, said)
    else:
        start, stop = share_of(shape[0], reader.mesh.get_local_rank(), reader.mesh.size())
    return Wanted(name, dtype, (stop - start, *shape[1:]), start, said)


def _even_rows(name: str, total: int, reader: Reader) -> tuple[int, int]:
    if reader.rank >= reader.world:
        raise TradewindError(
            f"{name} is cut over the workers, and rank {reader.rank} is none of {reader.world}: say world="
        )
    return share_of(total, reader.rank, reader.world)


def cover(want: Wanted, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, int, int]]:
    """The pieces that together have the wanted rows, each with the first row to take and the one after."""
    position = want.start
    for piece in sorted(pieces, key=lambda piece: piece.rows):
        first, last = piece.rows
        if first <= position < last and position < want.stop:
            yield piece, position, min(last, want.stop)
            position = min(last, want.stop)
    if position < want.stop:
        raise IntegrityError(f"rows {position} to {want.stop} of {want.name} are not here")


def finished(want: Wanted, local: torch.Tensor, mesh: Any) -> Any:
    """What stands in the state: the tensor, `Rows` of it, or a DTensor on the mesh."""
    if want.rest is None:
        return local
    if want.rest["kind"] == "$rows":
        return Rows(local, want.start, want.rest["shape"][0])
    return local if mesh is None else _dtensor(local, want, mesh)


def _dtensor(local: torch.Tensor, want: Wanted, mesh: Any) -> Any:
    from torch.distributed.tensor import DTensor, Replicate, Shard

    assert want.rest is not None
    shape = torch.Size(want.rest["shape"])
    return DTensor.from_local(
        local.to(mesh.device_type),
        mesh,
        [Replicate() if want.rest.get("whole") else Shard(0)],
        run_check=False,
        shape=shape,
        stride=torch.empty(shape, device="meta").stride(),
    )
