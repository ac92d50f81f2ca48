"""Open Inference Protocol v2 over HTTP: JSON tensors, and the binary tensor data extension."""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from tradewind.serve.errors import RequestError
from tradewind.serve.protocols.values import DATATYPES, Value, from_binary, from_json, to_binary, to_json
from tradewind.serve.served import ServedModel
from tradewind.serve.wire import Buffer, Port, nbytes_of

HEADER_LENGTH = "inference-header-content-length"
KNOWN_HEADS = 256
"""How many JSON parts of answers are remembered."""
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
    size = header_size(header_length, len(body))
    try:
        request = _decoder.decode(body[:size])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(400, f"not an inference request: {error}") from None
    refuse_unsupported(request.parameters)
    for output in request.outputs:
        refuse_unsupported(output.parameters)
    rest = memoryview(body)[size:]
    values: dict[str, Value] = {}
    for tensor in request.inputs:
        refuse_unsupported(tensor.parameters)
        if tensor.name in values:
            raise RequestError(400, f"input {tensor.name!r} is given twice")
        values[tensor.name], rest = _value(tensor, rest)
    if rest.nbytes:
        raise RequestError(400, f"{rest.nbytes} bytes follow the last binary tensor")
    return Inference(request, values)


def timeout_us(request: InferRequest) -> int | None:
    """Return the request's `timeout` in microseconds; None when it states none."""
    value = request.parameters.get("timeout")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise RequestError(400, "parameter 'timeout' must be microseconds, an integer that is not negative")
    return value


def render(model: ServedModel, version: str, request: InferRequest, values: Mapping[str, Value]) -> Answer:
    """Return the response body: the outputs asked for, each as JSON or binary as asked."""
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


def header_size(text: str | None, total: int) -> int:
    """Return how many bytes of a body of `total` are JSON, as a header states it; raises RequestError (400)."""
    if text is None:
        return total
    if not (text.isascii() and text.isdigit() and len(text) < 19) or int(text) > total:
        raise RequestError(
            400, "Inference-Header-Content-Length must be the length of the JSON part of the body"
        )
    return int(text)


def _value(tensor: RequestInput, rest: memoryview) -> tuple[Value, memoryview]:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if tensor.data is msgspec.UNSET:
            raise RequestError(400, f"input {tensor.name!r} has no data")
        return from_json(tensor.name, tensor.datatype, tensor.shape, tensor.data), rest
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= rest.nbytes:
        raise RequestError(
            400, f"input {tensor.name!r}: binary_data_size does not fit the {rest.nbytes} bytes left"
        )
    if tensor.data is not msgspec.UNSET:
        raise RequestError(400, f"input {tensor.name!r} has both JSON and binary data")
    return from_binary(tensor.name, tensor.datatype, tensor.shape, rest[:size]), rest[size:]


def refuse_unsupported(parameters: dict[str, Any]) -> None:
    for name, why in UNSUPPORTED.items() if parameters else ():
        if parameters.get(name):
            raise RequestError(400, why)
