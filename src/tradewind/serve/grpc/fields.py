"""A first look at a message before it is parsed: what a few bytes on the wire would make large in memory."""

from collections.abc import Iterator
from typing import NamedTuple

from tradewind.serve.errors import RequestError

MAX_FIELDS = 1024
"""Top-level fields of a request: its inputs, outputs, parameters and raw contents.

An empty input takes two bytes on the wire and about a hundred in memory.
"""
MODEL_NAME = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


class Field(NamedTuple):
    """Number of a field, and where its content lies."""

    number: int
    start: int
    end: int


def check(message: bytes) -> None:
    """Raise RequestError (400) unless `message` is a sequence of at most `MAX_FIELDS` fields."""
    for count, _ in enumerate(fields(message), 1):
        if count > MAX_FIELDS:
            raise RequestError(400, f"the message has more than {MAX_FIELDS} fields")


def model_name(message: bytes) -> str:
    """Return the model's name where the message begins with it, as clients write it; "" elsewhere."""
    try:
        first = next(fields(message), None)
    except RequestError:
        return ""
    if first is None or first.number != MODEL_NAME:
        return ""
    return message[first.start : first.end].decode("utf-8", "replace")


def fields(message: bytes) -> Iterator[Field]:
    """Yield the top-level fields of a message in the protobuf wire format. Raises RequestError (400) where it is not."""
    position, size = 0, len(message)
    while position < size:
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == _BYTES:
            length, position = _varint(message, position)
            end = position + length
        elif kind == _VARINT:
            _, end = _varint(message, position)
        elif kind in _FIXED:
            end = position + _FIXED[kind]
        else:
            raise RequestError(400, "not a protobuf message")
        if end > size:
            raise RequestError(400, "the message ends inside a field")
        yield Field(tag >> 3, position, end)
        position = end


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    for i in range(position, min(position + _MAX_VARINT_BYTES, len(message))):
        byte = message[i]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, i + 1
        shift += 7
    raise RequestError(400, "the message ends inside a number")
