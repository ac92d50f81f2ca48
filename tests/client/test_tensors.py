"""Arrays to wire bytes and back, for every datatype."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tradewind.client.errors import BrokenAnswer
from tradewind.client.tensors import NUMPY, Port, decode, encode, read_ports
from tradewind.errors import SpecError
from tradewind.serve.protocols import v2


def parsed(inputs: dict[str, Any], ports: dict[str, Port] | None = None) -> v2.Inference:
    """What the server's own parser makes of an encoded request."""
    head, buffers = encode(inputs, ports or {})
    return v2.parse(b"".join([head, *buffers]), str(len(head)))


@pytest.mark.parametrize("datatype", NUMPY)
def test_every_dtype_arrives_as_it_was(datatype: str) -> None:
    """The server reads the same numbers, from either byte order and any strides, and they decode to the same."""
    array = np.arange(12).reshape(3, 4).astype(NUMPY[datatype])[:, ::2]
    for sent in (array, array.astype(array.dtype.newbyteorder(">"))):
        value = parsed({"x": sent}).inputs["x"]
        assert (value.dtype, value.shape) == (datatype, (3, 2))
        np.testing.assert_array_equal(value.array(), array)


def test_lists_take_the_models_datatype() -> None:
    """A list of floats becomes FP32 or BF16 where the model says so; what does not fit is refused by name."""
    port = {"x": Port("x", "FP32", [-1]), "b": Port("b", "BF16", [-1]), "i": Port("i", "INT8", [-1])}
    value = parsed({"x": [0.5, 1.5], "b": [1.0], "i": [1, -2]}, port).inputs
    assert [value[name].dtype for name in "xbi"] == ["FP32", "BF16", "INT8"]
    assert parsed({"x": [1, 2]}).inputs["x"].dtype == "INT64"
    for wrong in ([300], [1.5]):
        with pytest.raises(SpecError, match="'i'"):
            encode({"i": wrong}, port)


def test_bf16_rounds_as_torch_does() -> None:
    """To the nearest, ties to even, infinity kept; NaN stays one."""
    given = [1.0, 0.1, 3.14159, 1.00390625, 1.01171875, -0.1, 1e-40, math.inf]
    _, (sent,) = encode({"b": given}, {"b": Port("b", "BF16", [-1])})
    assert sent == torch.tensor(given).bfloat16().view(torch.int16).numpy().tobytes()
    _, (sent,) = encode({"b": [math.nan, -math.nan]}, {"b": Port("b", "BF16", [-1])})
    assert torch.frombuffer(bytearray(sent), dtype=torch.bfloat16).isnan().all()


def test_strings_are_bytes() -> None:
    """str, bytes and numpy strings become BYTES; other objects are refused."""
    for given in (["a", "\u00e9"], np.array(["a", "\u00e9"]), np.array([b"a", "\u00e9".encode()], object)):
        assert parsed({"s": given}).inputs["s"].data == [b"a", "\u00e9".encode()]
    with pytest.raises(SpecError, match="'s'"):
        encode({"s": np.array([{}], object)}, {})
    with pytest.raises(SpecError, match="complex128"):
        encode({"c": np.ones(2, complex)}, {})


def answer(outputs: list[dict[str, Any]], *buffers: bytes) -> tuple[bytes, str | None]:
    head = msgspec.json.encode({"model_name": "m", "outputs": outputs})
    return b"".join([head, *buffers]), str(len(head)) if buffers else None


def test_answers_are_read_as_json_and_as_binary() -> None:
    """Binary outputs follow the JSON in order; null is NaN; strings come as bytes; BF16 as float32."""
    body, length = answer(
        [
            {"name": "a", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
            {"name": "j", "datatype": "FP64", "shape": [2, 1], "data": [1.5, None]},
            {"name": "s", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
            {"name": "h", "datatype": "BF16", "shape": [1], "parameters": {"binary_data_size": 2}},
            {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["x"]},
        ],
        np.array([1, 2], "<f4").tobytes(), b"\x01\0\0\0z", b"\x80\x3f",
    )  # fmt: skip
    _, arrays = decode(body, length, "")
    np.testing.assert_array_equal(arrays["a"], np.array([1, 2], np.float32))
    np.testing.assert_array_equal(arrays["j"], [[1.5], [np.nan]])
    assert (arrays["s"].tolist(), arrays["t"].tolist()) == ([b"z"], [b"x"])
    assert (arrays["h"].dtype, arrays["h"].tolist()) == (np.float32, [1.0])


@pytest.mark.parametrize(
    ("output", "data"),
    [
        ({"shape": [3], "parameters": {"binary_data_size": 8}}, bytes(8)),
        ({"shape": [2], "parameters": {"binary_data_size": 8}}, bytes(4)),
        ({"shape": [2], "parameters": {"binary_data_size": "x"}}, bytes(8)),
        ({"shape": [2]}, b""),
        ({"shape": [2], "datatype": "NEW", "data": [1, 2]}, b""),
        ({"shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}, b"\x09\0\0\0z"),
    ],
)
def test_an_answer_whose_parts_do_not_fit_is_broken(output: dict[str, Any], data: bytes) -> None:
    """Cut off, too many, of an unknown type: an error that says so, never another array."""
    body, length = answer([{"name": "a", "datatype": "FP32"} | output], *([data] if data else []))
    with pytest.raises(BrokenAnswer, match="not an inference answer"):
        decode(body, length, "")
    with pytest.raises(BrokenAnswer):
        read_ports(b"{}", "")
