"""State from the images of one host's workers, read where they lie."""

import fcntl
import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint import image, parts, sums
from tradewind.train.checkpoint.assemble import Reader, Stored, Wanted, cover, finished, wanted
from tradewind.train.checkpoint.copying import pool, threads_for
from tradewind.train.checkpoint.loaded import Loaded
from tradewind.train.checkpoint.parts import Worker
from tradewind.train.checkpoint.tensorfile import Piece, head_size, parse
from tradewind.train.checkpoint.tree import decode

Views = dict[str, list[tuple[Piece, torch.Tensor]]]


class Mapped:
    """An image mapped for this process alone: what it changes, nobody else sees."""

    def __init__(self, path: Path, header: image.Header) -> None:
        self.path = path
        self.header = header
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
        try:
            # The mapping keeps a copy of this descriptor, and so the lock, until its last tensor dies.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            memory = mmap.mmap(
                fd, os.fstat(fd).st_size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
        except BlockingIOError:
            raise IntegrityError(f"{path} is being overwritten") from None
        finally:
            os.close(fd)
        self.view = memoryview(memory)
        self._bytes = torch.frombuffer(memory, dtype=torch.uint8)
        if image.read_header(self.view) != header:
            raise IntegrityError(f"{path} holds another step by now")

    def chunks(self) -> Iterator[tuple["Mapped", str, int, int, bytes]]:
        """(this, file, first byte, size, checksum) of every chunk; none while the image is not sealed."""
        seal = image.read_seal(self.view, self.header)
        if seal is None:
            return
        expected = iter(seal)
        for name, at, size in self.header.files:
            for start, stop in sums.spans(size):
                yield self, name, at + start, stop - start, next(expected)

    def file(self, name: str) -> memoryview | None:
        """The bytes of a file in the image."""
        for known, at, size in self.header.files:
            if known == name:
                return self.view[at : at + size]
        return None

    def tensors(self, own: bool) -> Iterator[tuple[Piece, torch.Tensor]]:
        """The pieces in the worker's own safetensors file, or in all others, and their data."""
        mine = parts.own_name(self.header.rank, "safetensors")
        for name, at, size in self.header.files:
            if not name.endswith(".safetensors") or (name == mine) is not own:
                continue
            data = self.view[at : at + size]
            source = f"{name} in {self.path}"
            head = bytes(data[: head_size(bytes(data[:8]), source)])
            for it in parse(head, size, source):
                begin = at + it.offset
                raw = self._bytes[begin : begin + it.piece.nbytes]
                yield it.piece, raw.view(it.piece.dtype).view(it.piece.shape)


def restore(images: list[tuple[Path, image.Header]], worker: Worker, mesh: Any) -> Loaded:
    """The content of a complete set of images, for a worker of a world that may have another size."""
    mapped = [Mapped(path, header) for path, header in images]
    _check(mapped, worker)
    header = mapped[0].header
    mine = _owner(mapped, worker)
    views: Views = {}
    for part in mapped:
        for piece, tensor in part.tensors(own=False):
            views.setdefault(piece.name, []).append((piece, tensor))
    reader = Reader(rank=worker.rank, world=worker.world, mesh=mesh, held=_held(mine, worker))
    own = {piece.name: tensor for piece, tensor in mine.tensors(own=True)}
    return Loaded(
        step=header.step,
        world=header.world,
        shared=_assemble(_tree(mine, parts.SHARED_TREE), views, reader),
        own=decode(_tree(mine, parts.own_name(mine.header.rank, "json")), own),
    )


def _check(mapped: list[Mapped], worker: Worker) -> None:
    work = [chunk for part in mapped for chunk in part.chunks()]
    if sum(size for *_, size, _ in work) > sums.CHUNK:
        good = list(pool(threads_for(worker.local_world)).map(_is_whole, work))
    else:
        good = [_is_whole(chunk) for chunk in work]
    for (part, name, at, size, _), whole in zip(work, good, strict=True):
        if not whole:
            raise IntegrityError(f"{part.path} is damaged: {name}, bytes {at} to {at + size} of the image")


def _is_whole(chunk: tuple[Mapped, str, int, int, bytes]) -> bool:
    part, _, at, size, expected = chunk
    return sums.of_chunk(part.view[at : at + size]) == expected


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
    text = part.file(name)
    try:
        return json.loads(bytes(text or b""))
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
