"""safetensors files: what their headers say, and where in them each tensor's bytes lie."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint.tree import STORED, to_json

DTYPES = {name: dtype for dtype, name in STORED.items()}
_ALIGNED = 64
_SLICE = re.compile(r"(.*)\[(\d+):(\d+)\]", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """A tensor in a file: whole, or its rows from `start` to `stop`, under the key `name[start:stop]`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    """Of what is in the file."""
    start: int | None = None

    @property
    def key(self) -> str:
        """The tensor's name in the file."""
        return self.name if self.start is None else f"{self.name}[{self.start}:{self.start + self.shape[0]}]"

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def rows(self) -> tuple[int, int]:
        """First row and the row after the last; of a whole tensor too."""
        first = self.start or 0
        return first, first + (self.shape[0] if self.shape else 1)


@dataclass(frozen=True)
class Located:
    """A piece, and its first byte in its file."""

    piece: Piece
    offset: int


def layout(pieces: Iterable[Piece]) -> tuple[bytes, list[Located], int]:
    """The head of a file that holds these pieces, where each lies, and the file's size."""
    # Wide types first, so that every tensor lies aligned in the file and can be mapped.
    order = sorted(pieces, key=lambda piece: (-piece.dtype.itemsize, piece.key))
    header: dict[str, Any] = {}
    end = 0
    for piece in order:
        begin, end = end, end + piece.nbytes
        header[piece.key] = {
            "dtype": STORED[piece.dtype],
            "shape": list(piece.shape),
            "data_offsets": [begin, end],
        }
    text = to_json(header)
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    head = len(text).to_bytes(8, "little") + text
    located = [Located(piece, len(head) + header[piece.key]["data_offsets"][0]) for piece in order]
    return head, located, len(head) + end


def head_size(first: bytes, source: object) -> int:
    """How long a file's head is, from its first 8 bytes."""
    if len(first) < 8:
        raise IntegrityError(f"{source} is damaged: it is too short for a safetensors file")
    return 8 + int.from_bytes(first[:8], "little")


def parse(head: bytes, size: int, source: object) -> list[Located]:
    """What a file of `size` bytes that begins with `head` holds; IntegrityError names `source`."""
    try:
        entries = json.loads(head[8:])
        entries.pop("__metadata__", None)
        found = [_located(key, entry, len(head), size) for key, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{source} is damaged: its header is not a safetensors header") from error
    return found


def _located(key: str, entry: dict[str, Any], start: int, size: int) -> Located:
    name, first = key, None
    sliced = _SLICE.fullmatch(key)
    if sliced:
        name, first = sliced[1], int(sliced[2])
    piece = Piece(name, DTYPES[entry["dtype"]], tuple(entry["shape"]), first)
    begin, end = entry["data_offsets"]
    if piece.key != key or end - begin != piece.nbytes or not 0 <= start + begin <= start + end <= size:
        raise ValueError(f"{key} does not fit")
    return Located(piece, start + begin)
