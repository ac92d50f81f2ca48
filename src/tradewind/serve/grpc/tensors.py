"""Tensors of the protocol's messages to values and back, every bound checked before anything is made of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tradewind.serve.errors import RequestError
from tradewind.serve.grpc.messages import REQUESTS, RESPONSES
from tradewind.serve.protocols import v2
from tradewind.serve.protocols.values import MAX_DIMENSIONS, NUMPY, Value, check_shape, from_binary, to_binary

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of `InferTensorContents` for each datatype; FP16 and BF16 have none and travel raw."""
_WIDE = {"int_contents": NUMPY["INT32"], "uint_contents": NUMPY["UINT32"]}
"""What a field holds that is for several datatypes."""
_Request, _Response = REQUESTS["ModelInfer"], RESPONSES["ModelInfer"]


def inference_of(message: Any) -> v2.Inference:
    """Return a request as the JSON form of the protocol gives it. Raises RequestError (400) naming what is wrong."""
    outputs = [
        v2.RequestedOutput(name=output.name, parameters=parameters_of(output.parameters))
        for output in message.outputs
    ]
    request = v2.InferRequest(
        inputs=[], outputs=outputs, id=message.id, parameters=parameters_of(message.parameters)
    )
    v2.refuse_unsupported(request.parameters)
    for output in outputs:
        v2.refuse_unsupported(output.parameters)
    return v2.Inference(request, _values(message.inputs, message.raw_input_contents))


def parameters_of(parameters: Mapping[str, Any]) -> dict[str, object]:
    """Return each parameter's value; one without a value is None."""
    found: dict[str, object] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(parameter, choice)
    return found


def response_of(
    name: str, version: str, inference: v2.Inference, values: Mapping[str, Value], raw: bool
) -> Any:
    """Return the answer: the outputs asked for, raw, or typed where each has a typed form and `raw` is false."""
    request = inference.request
    wanted = [output.name for output in request.outputs] or list(values)
    answer = _Response(model_name=name, model_version=version, id=request.id)
    raw = raw or any(values[output].dtype not in CONTENTS for output in wanted)
    for output in wanted:
        value = values[output]
        tensor = answer.outputs.add(name=output, datatype=value.dtype, shape=value.shape)
        if raw:
            answer.raw_output_contents.append(bytes(to_binary(value)))
        else:
            items = value.data if isinstance(value.data, list) else value.array().ravel().tolist()
            getattr(tensor.contents, CONTENTS[value.dtype]).extend(items)
    return answer


def _values(inputs: Sequence[Any], raw: Sequence[bytes]) -> dict[str, Value]:
    if raw and len(raw) != len(inputs):
        raise RequestError(400, f"{len(raw)} raw_input_contents for {len(inputs)} inputs; send one for each")
    values: dict[str, Value] = {}
    for i, tensor in enumerate(inputs):
        v2.refuse_unsupported(parameters_of(tensor.parameters))
        name, dtype = tensor.name, tensor.datatype
        if name in values:
            raise RequestError(400, f"input {name[:80]!r} is given twice")
        if len(tensor.shape) > MAX_DIMENSIONS:
            raise RequestError(400, f"input {name[:80]!r}: more than {MAX_DIMENSIONS} dimensions")
        shape = list(tensor.shape)
        if not raw:
            values[name] = _typed(name, dtype, shape, tensor.contents)
        elif tensor.HasField("contents"):
            raise RequestError(400, f"input {name[:80]!r} has both typed and raw contents")
        else:
            values[name] = from_binary(name, dtype, shape, memoryview(raw[i]))
    return values


def _typed(name: str, dtype: str, shape: list[int], contents: Any) -> Value:
    count = check_shape(name, dtype, shape)
    field = CONTENTS.get(dtype)
    if field is None:
        raise RequestError(400, f"input {name[:80]!r}: {dtype} can only be sent in raw_input_contents")
    for other, _ in contents.ListFields():
        if other.name != field:
            raise RequestError(400, f"input {name[:80]!r}: {dtype} belongs in {field}, not in {other.name}")
    items = getattr(contents, field)
    if len(items) != count:
        raise RequestError(400, f"input {name[:80]!r}: {len(items)} elements do not fill shape {shape}")
    if dtype == "BYTES":
        return Value(dtype, tuple(shape), list(items))
    given = np.array(items[:], _WIDE.get(field, NUMPY[dtype]))
    array = given.astype(NUMPY[dtype])
    if field in _WIDE and not np.array_equal(array, given):
        raise RequestError(400, f"input {name[:80]!r}: an element is out of range for {dtype}")
    return from_binary(name, dtype, shape, memoryview(array.tobytes()))
