"""Typed contents of the protocol's messages, which no client library here sends."""

import numpy as np
import pytest

from tradewind.serve.errors import RequestError
from tradewind.serve.grpc.messages import REQUESTS
from tradewind.serve.grpc.tensors import CONTENTS, inference_of, response_of
from tradewind.serve.protocols.values import NUMPY, Value

EXTREMES = {
    dtype: [np.finfo(kind).min, 0.5] if kind.kind == "f" else [False, True] if dtype == "BOOL" else [np.iinfo(kind).min, np.iinfo(kind).max]
    for dtype, kind in NUMPY.items()
}  # fmt: skip


def request(dtype: str, items: list, shape: tuple[int, ...] = (2,), field: str | None = None, **more):
    message = REQUESTS["ModelInfer"](model_name="net", **more)
    tensor = message.inputs.add(name="x", datatype=dtype, shape=shape)
    getattr(tensor.contents, field or CONTENTS[dtype]).extend(items)
    return message


@pytest.mark.parametrize("dtype", sorted(CONTENTS.keys() - {"BYTES"}))
def test_typed_contents_become_the_tensor_and_back(dtype):
    """The smallest and the largest of each type, bit for bit."""
    expected = np.array(EXTREMES[dtype], NUMPY[dtype])
    inference = inference_of(request(dtype, expected.tolist()))
    value = inference.inputs["x"]
    np.testing.assert_array_equal(value.array(), expected)
    answer = response_of("net", "1", inference, {"x": value}, raw=False)
    assert list(getattr(answer.outputs[0].contents, CONTENTS[dtype])) == expected.tolist()
    assert not answer.raw_output_contents


def test_strings_become_the_tensor_and_back():
    """BYTES are any bytes."""
    inference = inference_of(request("BYTES", [b"\xff", b""]))
    assert inference.inputs["x"] == Value("BYTES", (2,), [b"\xff", b""])
    answer = response_of("net", "1", inference, inference.inputs, raw=False)
    assert list(answer.outputs[0].contents.bytes_contents) == [b"\xff", b""]


def test_an_answer_with_a_type_that_has_no_typed_form_is_raw():
    """All of it: the protocol does not mix them."""
    inference = inference_of(request("FP32", [1, 2]))
    half = Value("FP16", (2,), np.array([1, 2], np.float16).tobytes())
    answer = response_of("net", "1", inference, {"x": inference.inputs["x"], "half": half}, raw=False)
    assert len(answer.raw_output_contents) == 2
    assert not any(tensor.HasField("contents") for tensor in answer.outputs)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (request("INT8", [1, 300]), "out of range for INT8"),
        (request("UINT16", [1, 1 << 16]), "out of range for UINT16"),
        (request("FP32", [1]), "1 elements do not fill"),
        (request("FP32", [1, 2], field="int_contents"), "belongs in fp32_contents"),
        (request("FP16", [1, 2], field="fp32_contents"), "raw_input_contents"),
        (request("FP31", [], field="fp32_contents"), "unknown datatype"),
        (request("FP32", [1, 2], (-2,)), "shape"),
        (request("FP32", [1, 2], (1,) * 17), "dimensions"),
        (request("FP32", [1, 2], raw_input_contents=[bytes(8)]), "both typed and raw"),
        (request("FP32", [1, 2], raw_input_contents=[bytes(8)] * 2), "2 raw_input_contents for 1 inputs"),
    ],
)
def test_what_is_wrong_is_named(message, why):
    """400, and nothing is made of it."""
    with pytest.raises(RequestError, match=why) as caught:
        inference_of(message)
    assert caught.value.status == 400
