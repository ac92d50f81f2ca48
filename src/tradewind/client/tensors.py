"""numpy arrays as tensors of the Open Inference Protocol v2, in its binary extension, and back."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tradewind.client.errors import BrokenAnswer
from tradewind.errors import MissingExtraError, SpecError

try:
    import numpy as np
    import numpy.typing as npt
except ImportError as missing:
    raise MissingExtraError("inference needs numpy: run `pip install 'tradewind[client]'`") from missing

Array = npt.NDArray[Any]
NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
_NAMES = {dtype: name for name, dtype in NUMPY.items()}


class Port(msgspec.Struct, frozen=True):
    """One input or output of a model, as its metadata says."""

    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct, frozen=True):
    inputs: list[Port]


class _Output(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class InferAnswer(msgspec.Struct, frozen=True):
    """The JSON part of an inference answer."""

    model_name: str
    outputs: list[_Output]
    model_version: str = ""
    id: str = ""


_decode_metadata = msgspec.json.Decoder(_Metadata).decode
_decode_answer = msgspec.json.Decoder(InferAnswer).decode


def read_ports(body: bytes, endpoint: str) -> dict[str, Port]:
    """A model's inputs by name, from its metadata. Raises BrokenAnswer where it is none."""
    try:
        return {port.name: port for port in _decode_metadata(body).inputs}
    except msgspec.MsgspecError as error:
        raise BrokenAnswer(f"not a model's metadata: {error}", endpoint=endpoint) from None


def encode(
    inputs: Mapping[str, Any],
    ports: Mapping[str, Port],
    outputs: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> tuple[bytes, list[bytes]]:
    """The JSON part of a request, and the tensors' bytes that follow it.

    An array keeps its dtype; a list takes the datatype of the model's port of that name, if `ports` has it.
    Raises SpecError naming an input that is no tensor.
    """
    heads, buffers = [], []
    for name, value in inputs.items():
        datatype, shape, data = _encode_one(name, value, ports.get(name))
        heads.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": shape,
                "parameters": {"binary_data_size": len(data)},
            }
        )
        buffers.append(data)
    request: dict[str, Any] = {
        "inputs": heads,
        "parameters": {"binary_data_output": True, **(parameters or {})},
    }
    if outputs:
        request["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    return msgspec.json.encode(request), buffers


def _encode_one(name: str, value: Any, port: Port | None) -> tuple[str, list[int], bytes]:
    array = value if isinstance(value, np.ndarray) else _from_list(name, value, port)
    shape = list(array.shape)
    if array.dtype.kind in "OSU":
        return "BYTES", shape, _pack_strings(name, array)
    if array.dtype.name == "bfloat16":
        return "BF16", shape, array.tobytes()
    little = array.dtype.newbyteorder("<")
    if little not in _NAMES:
        raise SpecError(f"input {name!r}: {array.dtype} is no tensor type; one of {', '.join(NUMPY)}, BYTES")
    if port is not None and port.datatype == "BF16":
        return "BF16", shape, _to_bf16(array)
    return _NAMES[little], shape, array.astype(little, copy=False).tobytes()


def _from_list(name: str, value: Any, port: Port | None) -> Array:
    datatype = port.datatype if port else ""
    if datatype == "BYTES":
        return np.asarray(value, dtype=object)
    wanted = NUMPY["FP32"] if datatype == "BF16" else NUMPY.get(datatype)
    try:
        given = np.asarray(value)
        array = given if wanted is None or given.dtype.kind in "OSU" else given.astype(wanted)
    except ValueError as error:
        raise SpecError(f"input {name!r}: {error}") from None
    if wanted is not None and wanted.kind in "iub" and not np.array_equal(array, given):
        raise SpecError(f"input {name!r}: its values do not fit {datatype}")
    return array


def _to_bf16(array: Array) -> bytes:
    """Round to the nearest, ties to even, as torch does; NaN stays NaN."""
    bits = np.ascontiguousarray(array, "<f4").view("<u4").astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded).astype("<u2").tobytes()


def _pack_strings(name: str, array: Array) -> bytes:
    parts = []
    for item in array.ravel():
        if not isinstance(item, (str, bytes)):
            raise SpecError(
                f"input {name!r}: holds {type(item).__name__}; strings and bytes are tensors, others not"
            )
        data = item.encode() if isinstance(item, str) else bytes(item)
        parts.append(struct.pack("<I", len(data)) + data)
    return b"".join(parts)


def decode(body: bytes, header_length: str | None, endpoint: str) -> tuple[InferAnswer, dict[str, Array]]:
    """The JSON part of an answer, and its tensors by name.

    BF16 comes as float32, BYTES as an object array of `bytes`. Raises BrokenAnswer where parts do not fit.
    """
    try:
        size = len(body) if header_length is None else int(header_length)
        answer = _decode_answer(memoryview(body)[:size])
        rest = memoryview(body)[size:]
        arrays = {}
        for output in answer.outputs:
            arrays[output.name], rest = _decode_one(output, rest)
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise BrokenAnswer(f"not an inference answer: {error}", endpoint=endpoint) from None
    return answer, arrays


def _decode_one(output: _Output, rest: memoryview) -> tuple[Array, memoryview]:
    size = output.parameters.get("binary_data_size")
    if size is None:
        return _from_json(output), rest
    data, rest = rest[:size], rest[size:]
    if len(data) != size:
        raise ValueError(f"output {output.name!r} is cut off")
    if output.datatype == "BYTES":
        flat = _cut_strings(data, math.prod(output.shape))
    elif output.datatype == "BF16":
        flat = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        flat = np.frombuffer(data, NUMPY[output.datatype])
    return flat.reshape(output.shape), rest


def _from_json(output: _Output) -> Array:
    if output.data is None:
        raise ValueError(f"output {output.name!r} has no data")
    if output.datatype == "BYTES":
        return _objects([str(item).encode() for item in output.data]).reshape(output.shape)
    wanted = NUMPY["FP32"] if output.datatype == "BF16" else NUMPY[output.datatype]
    values = (
        [math.nan if item is None else item for item in output.data] if wanted.kind == "f" else output.data
    )
    return np.asarray(values, wanted).reshape(output.shape)


def _cut_strings(data: memoryview, count: int) -> Array:
    items, start = [], 0
    while start < len(data):
        size = int.from_bytes(data[start : start + 4], "little")
        items.append(bytes(data[start + 4 : start + 4 + size]))
        start += 4 + size
    if len(items) != count or start != len(data):
        raise ValueError(f"the data does not hold {count} strings")
    return _objects(items)


def _objects(items: list[bytes]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array
