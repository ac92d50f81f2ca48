"""Open Inference Protocol v2 over HTTP: JSON tensors, and the binary tensor data extension."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from tradewind.serve.errors import RequestError
from tradewind.serve.protocols.values import DATATYPES, Value, from_binary, from_json, to_binary, to_json
from tradewind.serve.served import ServedModel
from tradewind.serve.wire import ITEM_BYTES, Buffer, Port, nbytes_of

HEADER_LENGTH = "inference-header-content-length"
KNOWN_HEADS, KNOWN_BYTES = 256, 2048
"""How many JSON parts before binary tensors are remembered, and how long they may be: a client sends the same ones."""
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
PLATFORM = "pytorch_tradewind"
UNSUPPORTED = {
    "classification": "classification is not supported; ask for the tensor",
    "shared_memory_region": "shared memory is not supported; send the tensor in the request",
    "sequence_id": "sequences are not supported; each request stands alone",
}


Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Datatype = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(DATATYPES)})$")]


class RequestInput(msgspec.Struct, frozen=True, kw_only=True):
    """One input tensor; without `data` its bytes follow the JSON header."""

    name: str
    shape: Annotated[list[Size], msgspec.Meta(max_length=16)]
    datatype: Datatype
    parameters: dict[str, Any] = {}
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET


class RequestedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """One output that the client asks for."""

    name: str
    parameters: dict[str, Any] = {}


Numbers = tuple[str, tuple[int, ...], int]
"""Datatype, shape and bytes of a tensor of numbers."""

OutputSpec = tuple[str, str, tuple[int, ...], int | None]
"""Name, datatype and shape of an output, and how many bytes it is; None where it comes as JSON."""


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON part of an inference request."""

    inputs: list[RequestInput]
    outputs: list[RequestedOutput] = []
    id: str = ""
    parameters: dict[str, Any] = {}


class ResponseOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One output tensor; without `data` its bytes follow the JSON header."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] = {}
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET


class InferResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON part of an inference response."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str = ""


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Name, type and shape of an input or output; -1 is a dynamic dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the server is and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: tuple[str, ...] = EXTENSIONS


class Live(msgspec.Struct, frozen=True):
    """The server process is alive."""

    live: bool = True


class Ready(msgspec.Struct, frozen=True):
    """The server, or a model, can answer."""

    ready: bool = True


class Failure(msgspec.Struct, frozen=True):
    """Every answer that is not 2xx."""

    error: str


class Inference(NamedTuple):
    """A request after parsing: values by input name, and how the answer is wanted."""

    request: InferRequest
    inputs: dict[str, Value]


class Answer(NamedTuple):
    """Body of an inference response; `header_length` is None when all of it is JSON."""

    body: bytes
    header_length: int | None


_decoder = msgspec.json.Decoder(InferRequest)


def parse(body: bytes, header_length: str | None) -> Inference:
    """Parse an inference request. Raises RequestError (400) naming what is wrong and where."""
    size = _header_size(header_length, len(body))
    seldom = header_length is None or size > KNOWN_BYTES
    request, plain = _read(body[:size]) if seldom else _known(body[:size])
    view = memoryview(body)
    values: dict[str, Value] = {}
    for tensor, numbers in zip(request.inputs, plain, strict=True):
        if numbers is None:
            values[tensor.name], size = _value(tensor, view, size)
            continue
        dtype, shape, num_bytes = numbers
        start, size = size, size + num_bytes
        if size > len(body):
            raise _no_fit(tensor, len(body) - start)
        values[tensor.name] = Value(dtype, shape, view[start:size])
    if size < len(body):
        raise RequestError(400, f"{len(body) - size} bytes follow the last binary tensor")
    return Inference(request, values)


def _read(head: bytes) -> tuple[InferRequest, list[Numbers | None]]:
    """Read the JSON of a request: what it is, and those of its inputs whose bytes need no other look than at their size."""
    try:
        request = _decoder.decode(head)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(400, f"not an inference request: {error}") from None
    parts: list[InferRequest | RequestedOutput | RequestInput] = [request, *request.outputs, *request.inputs]
    for part in parts:
        refuse_unsupported(part.parameters)
    given: set[str] = set()
    for tensor in request.inputs:
        if tensor.name in given:
            raise RequestError(400, f"input {tensor.name!r} is given twice")
        given.add(tensor.name)
    return request, [_plain(tensor) for tensor in request.inputs]


def _plain(tensor: RequestInput) -> Numbers | None:
    """Return what is said of numbers that are sent as binary data, where it is consistent; None for all else."""
    dtype, size = tensor.datatype, tensor.parameters.get("binary_data_size")
    if dtype in ("BOOL", "BYTES") or type(size) is not int or tensor.data is not msgspec.UNSET:
        return None
    shape = tuple(tensor.shape)
    return (dtype, shape, size) if math.prod(shape) * ITEM_BYTES[dtype] == size else None


_known = functools.lru_cache(KNOWN_HEADS)(_read)


def timeout_us(request: InferRequest) -> int | None:
    """Return the request's `timeout` in microseconds; None when it states none."""
    value = request.parameters.get("timeout")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise RequestError(400, "parameter 'timeout' must be microseconds, an integer that is not negative")
    return value


def render(model: ServedModel, version: str, inference: Inference, values: dict[str, Value]) -> Answer:
    """Return the response body: the outputs asked for, each as JSON or binary as asked."""
    request = inference.request
    default = request.parameters.get("binary_data_output") is True
    wanted = request.outputs or [RequestedOutput(name=name) for name in values]
    specs: list[OutputSpec] = []
    as_json: dict[str, list[Any]] = {}
    buffers: list[Buffer] = []
    for output in wanted:
        name, value = output.name, values[output.name]
        if output.parameters.get("binary_data", default) is True:
            buffers.append(binary := to_binary(value))
            specs.append((name, value.dtype, value.shape, nbytes_of(binary)))
        else:
            as_json[name] = to_json(value)
            specs.append((name, value.dtype, value.shape, None))
    if as_json:
        header = _answer_head(model.name, version, request.id, specs, as_json)
    else:
        header = _binary_head(model.name, version, request.id, tuple(specs))
    return Answer(b"".join((header, *buffers)), len(header)) if buffers else Answer(header, None)


def _answer_head(
    model: str, version: str, id_: str, specs: Sequence[OutputSpec], as_json: Mapping[str, list[Any]]
) -> bytes:
    outputs = [
        ResponseOutput(
            name=name,
            datatype=dtype,
            shape=shape,
            parameters={} if size is None else {"binary_data_size": size},
            data=as_json.get(name, msgspec.UNSET),
        )
        for name, dtype, shape, size in specs
    ]
    return msgspec.json.encode(
        InferResponse(model_name=model, model_version=version, outputs=outputs, id=id_)
    )


@functools.lru_cache(KNOWN_HEADS)
def _binary_head(model: str, version: str, id_: str, specs: tuple[OutputSpec, ...]) -> bytes:
    """Return what comes before outputs that are all binary, which most answers have in common."""
    return _answer_head(model, version, id_, specs, {})


def check_outputs(model: ServedModel, request: InferRequest) -> None:
    """Raise RequestError (400) when the client asks for an output that the model does not have."""
    if not request.outputs:
        return
    known = [port.name for port in model.outputs]
    for output in request.outputs:
        if output.name not in known:
            raise RequestError(400, f"unknown output {output.name!r}; the outputs are {', '.join(known)}")


def metadata(model: ServedModel, version: str) -> ModelMetadata:
    """Return the model metadata response."""
    return ModelMetadata(
        name=model.name,
        versions=(version,),
        platform=PLATFORM,
        inputs=tuple(_port(port) for port in model.inputs),
        outputs=tuple(_port(port) for port in model.outputs),
    )


def _port(port: Port) -> TensorMetadata:
    return TensorMetadata(name=port.name, datatype=port.dtype, shape=port.shape, optional=port.optional)


def _header_size(text: str | None, total: int) -> int:
    if text is None:
        return total
    if not (text.isascii() and text.isdigit() and len(text) < 19) or int(text) > total:
        raise RequestError(
            400, "Inference-Header-Content-Length must be the length of the JSON part of the body"
        )
    return int(text)


def _value(tensor: RequestInput, body: memoryview, start: int) -> tuple[Value, int]:
    """Return the value of an input whose binary data, where it has any, begins at `start`, and where that ends."""
    size, left = tensor.parameters.get("binary_data_size"), body.nbytes - start
    if size is None:
        if tensor.data is msgspec.UNSET:
            raise RequestError(400, f"input {tensor.name!r} has no data")
        return from_json(tensor.name, tensor.datatype, tensor.shape, tensor.data), start
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= left:
        raise _no_fit(tensor, left)
    if tensor.data is not msgspec.UNSET:
        raise RequestError(400, f"input {tensor.name!r} has both JSON and binary data")
    end = start + size
    return from_binary(tensor.name, tensor.datatype, tensor.shape, body[start:end]), end


def _no_fit(tensor: RequestInput, left: int) -> RequestError:
    return RequestError(400, f"input {tensor.name!r}: binary_data_size does not fit the {left} bytes left")


def refuse_unsupported(parameters: dict[str, Any]) -> None:
    for name, why in UNSUPPORTED.items() if parameters else ():
        if parameters.get(name):
            raise RequestError(400, why)
