"""Images of other processes, mapped to be read where they lie, and verified."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint import image, parts, sums
from tradewind.train.checkpoint.copying import pool, threads_for
from tradewind.train.checkpoint.parts import Worker
from tradewind.train.checkpoint.tensorfile import Piece, head_size, parse


class Chunk(NamedTuple):
    """Bytes of a file in an image, and the checksum that they had when they were staged."""

    file: str
    at: int
    data: memoryview
    expected: bytes

    def is_whole(self) -> bool:
        """Whether they are still the same."""
        return sums.of_chunk(self.data) == self.expected


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
            # The mappings keep copies of this descriptor, and so the lock, until the last tensor dies.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            size = os.fstat(fd).st_size
            memory = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            staged = memoryview(mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ))
        except BlockingIOError:
            raise IntegrityError(f"{path} is being overwritten") from None
        finally:
            os.close(fd)
        self._bytes = torch.frombuffer(memory, dtype=torch.uint8)
        self.staged = staged
        """What was staged, whatever this process does to its own view of it; not written to while this lives."""
        if image.read_header(staged) != header:
            raise IntegrityError(f"{path} holds another step by now")
        self.chunks = self._chunks()

    def _chunks(self) -> dict[str, list[Chunk]]:
        """The chunks of every file, in order; none while the image is not sealed."""
        seal = iter(image.read_seal(self.staged, self.header) or [])
        found: dict[str, list[Chunk]] = {name: [] for name, _, _ in self.header.files}
        for name, at, size in self.header.files:
            for (start, stop), expected in zip(sums.spans(size), seal, strict=False):
                found[name].append(Chunk(name, at + start, self.staged[at + start : at + stop], expected))
        return found

    def refuse(self, chunk: Chunk) -> IntegrityError:
        """Have the image never offered again; the error to raise."""
        image.condemn(self.path, self.header)
        return IntegrityError(
            f"{self.path} is damaged: {chunk.file}, from byte {chunk.at} of the image; nothing that was "
            "loaded from it may be used"
        )

    def first(self, name: str, length: int) -> bytes:
        """The verified first bytes of a file in the image."""
        for chunk in self.chunks.get(name, [])[: sums.num_chunks(length)]:
            if not chunk.is_whole():
                raise self.refuse(chunk)
        for known, at, size in self.header.files:
            if known == name:
                return bytes(self.staged[at : at + min(length, size)])
        raise IntegrityError(f"{self.path} is damaged: it has no {name}")

    def tensors(self, own: bool) -> Iterator[tuple[Piece, torch.Tensor]]:
        """The pieces in the worker's own safetensors file, or in all others, and their data."""
        mine = parts.own_name(self.header.rank, "safetensors")
        for name, at, size in self.header.files:
            if not name.endswith(".safetensors") or (name == mine) is not own:
                continue
            source = f"{name} in {self.path}"
            head = self.first(name, head_size(self.first(name, 8), source))
            for it in parse(head, size, source):
                begin = at + it.offset
                raw = self._bytes[begin : begin + it.piece.nbytes]
                yield it.piece, raw.view(it.piece.dtype).view(it.piece.shape)


class Checking:
    """The verification of a set of images, while what was loaded is put to use already.

    The workers that load verify the images together, each its share.
    """

    def __init__(self, mapped: list[Mapped], worker: Worker) -> None:
        share = mapped[worker.local_rank :: worker.local_world]
        threads = pool(threads_for(worker.local_world))
        self._work = [
            (part, chunk, threads.submit(chunk.is_whole))
            for part in share
            for chunks in part.chunks.values()
            for chunk in chunks
        ]

    def finish(self) -> None:
        """Wait for it. An image that is damaged is never offered again, and an IntegrityError says so."""
        for part, chunk, whole in self._work:
            if not whole.result():
                raise part.refuse(chunk)
