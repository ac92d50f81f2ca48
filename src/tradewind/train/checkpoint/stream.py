"""A safetensors file straight from the tensors, when there is no image of it."""

import mmap
from collections.abc import Iterator

import numpy as np

from tradewind.train.checkpoint import parts
from tradewind.train.checkpoint.copying import Bytes, raw
from tradewind.train.checkpoint.files import BLOCK
from tradewind.train.checkpoint.image import PAGE
from tradewind.train.checkpoint.layout import TensorFile
from tradewind.train.checkpoint.tree import Tensors


def blocks(file: TensorFile, tensors: Tensors) -> Iterator[memoryview]:
    """The file block by block; a block is overwritten when the one after the next is asked for."""
    size = min(BLOCK, -(-file.size // PAGE) * PAGE)
    # Anonymous maps begin at a page, as direct writing demands.
    ring = [mmap.mmap(-1, size) for _ in range(2)]
    turn, filled = 0, 0
    for data in _contents(file, tensors):
        taken = 0
        while taken < len(data):
            count = min(len(data) - taken, size - filled)
            np.copyto(_array(ring[turn])[filled : filled + count], data[taken : taken + count])
            taken, filled = taken + count, filled + count
            if filled == size:
                yield memoryview(ring[turn])
                turn, filled = 1 - turn, 0
    if filled:
        yield memoryview(ring[turn])[: -(-filled // PAGE) * PAGE]


def _array(memory: mmap.mmap) -> Bytes:
    return np.frombuffer(memory, dtype=np.uint8)


def _contents(file: TensorFile, tensors: Tensors) -> Iterator[Bytes]:
    """The head, then every piece's bytes, one tensor in host memory at a time."""
    yield np.frombuffer(file.head, dtype=np.uint8)
    for it in file.located:
        if it.piece.nbytes:
            yield raw(parts.source(it.piece, tensors).cpu().contiguous())
