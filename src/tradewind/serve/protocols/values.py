"""Tensor values on the front side: from JSON or wire bytes, checked, and back; numpy, no torch."""

import math
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tradewind.serve.errors import RequestError
from tradewind.serve.wire import ITEM_BYTES, Buffer

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES = (*ITEM_BYTES, "BYTES")
MAX_DIMENSIONS = 16
_JSON_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}


class Value(NamedTuple):
    """One tensor: raw little-endian bytes, or a list of byte strings when `dtype` is BYTES."""

    dtype: str
    shape: tuple[int, ...]
    data: Buffer | list[bytes]

    def array(self) -> npt.NDArray[Any]:
        """The numeric tensor as numpy, sharing memory."""
        assert not isinstance(self.data, list)
        return np.frombuffer(self.data, NUMPY[self.dtype]).reshape(self.shape)


def check_shape(name: str, dtype: str, shape: list[int]) -> int:
    """Return the number of elements. Raises RequestError for an unknown type or an impossible shape."""
    if dtype not in ITEM_BYTES and dtype != "BYTES":
        raise RequestError(400, f"input {name!r}: unknown datatype {dtype!r}; one of {', '.join(DATATYPES)}")
    if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0:
        raise RequestError(400, f"input {name!r}: shape {shape[:MAX_DIMENSIONS]} is not valid")
    return math.prod(shape)


def from_json(name: str, dtype: str, shape: list[int], data: Any) -> Value:
    """Return the value of `data`, flat or nested row-major lists. Raises RequestError naming what is wrong."""
    count = check_shape(name, dtype, shape)
    if not isinstance(data, list):
        raise RequestError(400, f"input {name!r}: data must be a list")
    if dtype == "BYTES":
        return Value(dtype, tuple(shape), _strings(name, shape, data, count))
    if dtype not in NUMPY:
        raise RequestError(400, f"input {name!r}: {dtype} can only be sent as binary data")
    array = _numbers(name, dtype, data)
    if array.size != count or array.shape not in ((count,), tuple(shape)):
        raise RequestError(400, f"input {name!r}: {array.size} elements do not fill shape {shape}")
    return Value(dtype, tuple(shape), array.tobytes())


def from_binary(name: str, dtype: str, shape: list[int], data: memoryview) -> Value:
    """Return the value whose wire bytes are `data`; whether any is NaN is seen where they are used.

    Raises RequestError naming what is wrong.
    """
    count = check_shape(name, dtype, shape)
    if dtype == "BYTES":
        return Value(dtype, tuple(shape), _cut_strings(name, data, count))
    expected = count * ITEM_BYTES[dtype]
    if data.nbytes != expected:
        raise RequestError(
            400, f"input {name!r}: {data.nbytes} bytes, shape {shape} of {dtype} needs {expected}"
        )
    if dtype == "BOOL" and count and np.frombuffer(data, "u1").max() > 1:
        raise RequestError(400, f"input {name!r}: a BOOL is the byte 0 or 1")
    return Value(dtype, tuple(shape), data)


def to_json(value: Value) -> list[Any]:
    """Return the elements as a flat list; a float that JSON cannot hold becomes null."""
    if isinstance(value.data, list):
        return [item.decode("utf-8", "replace") for item in value.data]
    if value.dtype == "BF16":
        bits = np.frombuffer(value.data, "<u2").astype("<u4") << 16
        return list(bits.view("<f4").tolist())
    return list(np.frombuffer(value.data, NUMPY[value.dtype]).tolist())


def to_binary(value: Value) -> Buffer:
    """Return the wire bytes; BYTES elements are each prefixed with their length."""
    if isinstance(value.data, list):
        return b"".join(struct.pack("<I", len(item)) + item for item in value.data)
    return value.data


def _numbers(name: str, dtype: str, data: list[Any]) -> npt.NDArray[Any]:
    try:
        given = np.asarray(data)
    except (ValueError, OverflowError):
        raise RequestError(400, f"input {name!r}: data is ragged or holds more than numbers") from None
    target = NUMPY[dtype]
    if given.size == 0:
        return np.empty(0, target)  # numpy takes an empty list, however nested, for floats
    if dtype == "UINT64" and given.dtype.kind == "f":
        given = _whole_numbers(data)  # numpy takes large and small ones together for floats
    if given.dtype.kind not in _JSON_KINDS[target.kind]:
        raise RequestError(400, f"input {name!r}: data does not hold {dtype} elements")
    with np.errstate(over="ignore"):
        array = given.astype(target)
    if target.kind in "iu" and not np.array_equal(array, given):
        raise RequestError(400, f"input {name!r}: an element is out of range for {dtype}")
    if target.kind == "f" and not np.isfinite(array).all():
        raise RequestError(400, f"input {name!r}: an element is NaN or out of range for {dtype}")
    return array


def _whole_numbers(data: list[Any]) -> npt.NDArray[Any]:
    items = np.asarray(data, object)
    if all(type(item) is int and 0 <= item < 1 << 64 for item in items.flat):
        return items.astype(np.uint64)
    return items


def _strings(name: str, shape: list[int], data: list[Any], count: int) -> list[bytes]:
    flat: list[Any] = data
    for _ in range(len(shape) - 1):
        if not any(isinstance(item, list) for item in flat):
            break
        if not all(isinstance(item, list) for item in flat):
            raise RequestError(400, f"input {name!r}: data is ragged")
        flat = [item for row in flat for item in row]
    if len(flat) != count or not all(isinstance(item, str) for item in flat):
        raise RequestError(400, f"input {name!r}: data must be {count} strings")
    try:
        return [item.encode() for item in flat]
    except UnicodeEncodeError:
        raise RequestError(400, f"input {name!r}: a string is not valid Unicode") from None


def _cut_strings(name: str, data: memoryview, count: int) -> list[bytes]:
    items: list[bytes] = []
    start = 0
    while start < data.nbytes and len(items) <= count:
        stop = start + 4
        size = int.from_bytes(data[start:stop], "little")
        if stop + size > data.nbytes:
            raise RequestError(400, f"input {name!r}: a BYTES element runs past the end of its data")
        items.append(bytes(data[stop : stop + size]))
        start = stop + size
    if len(items) != count:
        raise RequestError(400, f"input {name!r}: the data does not hold {count} BYTES elements")
    return items
