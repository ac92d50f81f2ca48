"""Open Inference Protocol v2: requests in JSON and binary, answers as they were asked for."""

import json
import struct

import msgspec
import numpy as np
import pytest

from tradewind.serve.errors import RequestError
from tradewind.serve.protocols import v2
from tradewind.serve.protocols.values import Value
from tradewind.serve.served import ProgramModel
from tradewind.serve.wire import Port, Program

X = np.array([[1.5, 2.0]], np.float32)
PORTS = (Port(name="x", dtype="FP32", shape=(-1, 2)), Port(name="s", dtype="BYTES", shape=(-1,)))
MODEL = ProgramModel("m", "m", Program(inputs=PORTS, outputs=PORTS))
VALUES = {"x": Value("FP32", (1, 2), X.tobytes()), "s": Value("BYTES", (2,), [b"a", b"bc"])}
STRINGS = struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + b"bc"


def binary_request(tail: bytes = b"", **parameters) -> tuple[bytes, str]:
    inputs = [
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "j", "shape": [1], "datatype": "INT64", "data": [7]},
        {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(STRINGS)}},
    ]
    head = json.dumps({"id": "r", "inputs": inputs, "parameters": parameters}).encode()
    return head + X.tobytes() + STRINGS + tail, str(len(head))


def test_binary_and_json_tensors_may_be_mixed():
    """Binary data follow the header in the order of the inputs that have them."""
    inference = v2.parse(*binary_request())
    assert inference.inputs["x"].array().tolist() == X.tolist()
    assert inference.inputs["j"].array().tolist() == [7]
    assert inference.inputs["s"].data == [b"a", b"bc"]


def test_an_input_that_is_given_twice_is_refused():
    """Which of the two is meant cannot be known."""
    tensor = {"name": "x", "shape": [1], "datatype": "INT64", "data": [7]}
    with pytest.raises(RequestError, match="'x' is given twice"):
        v2.parse(json.dumps({"inputs": [tensor, tensor]}).encode(), None)


@pytest.mark.parametrize(("tail", "why"), [(b"z", "1 bytes follow"), (b"zz", "2 bytes follow")])
def test_bytes_that_belong_to_no_tensor_are_refused(tail, why):
    """A length that lies is not guessed at."""
    with pytest.raises(RequestError, match=why):
        v2.parse(*binary_request(tail))


def answer(outputs: list[dict], **parameters) -> tuple[dict, bytes]:
    """The answer's JSON, and the bytes after it."""
    request = {"id": "r1", "inputs": [], "outputs": outputs, "parameters": parameters}
    inference = v2.parse(json.dumps(request).encode(), None)
    body, length = v2.render(MODEL, "3", inference.request, VALUES)
    return msgspec.json.decode(body[:length]), bytes(body[length:]) if length is not None else b""


def test_all_outputs_come_as_json_when_nothing_is_asked_for():
    """Model, version and id come with them."""
    head, tail = answer([])
    assert {k: head[k] for k in ("model_name", "model_version", "id")} == {
        "model_name": "m", "model_version": "3", "id": "r1"
    }  # fmt: skip
    assert [o["data"] for o in head["outputs"]] == [[1.5, 2.0], ["a", "bc"]]
    assert tail == b""


def test_outputs_come_in_the_order_and_form_asked_for():
    """Binary for one, JSON for another, and what was not asked for not at all."""
    head, tail = answer([{"name": "s", "parameters": {"binary_data": True}}, {"name": "x"}])
    assert [(o["name"], o.get("data"), o.get("parameters")) for o in head["outputs"]] == [
        ("s", None, {"binary_data_size": len(STRINGS)}),
        ("x", [1.5, 2.0], None),
    ]
    assert tail == STRINGS


def test_one_parameter_makes_all_outputs_binary():
    """`binary_data_output`, unless an output says otherwise for itself."""
    _, tail = answer([], binary_data_output=True)
    assert tail == X.tobytes() + STRINGS
    _, tail = answer(
        [{"name": "x"}, {"name": "s", "parameters": {"binary_data": False}}], binary_data_output=True
    )
    assert tail == X.tobytes()


@pytest.mark.parametrize(("timeout", "expected"), [(None, None), (0, 0), (5, 5)])
def test_timeout_is_microseconds(timeout, expected):
    """Absent, zero, or a number of them."""
    request = v2.InferRequest(inputs=[], parameters={} if timeout is None else {"timeout": timeout})
    assert v2.timeout_us(request) == expected


@pytest.mark.parametrize("timeout", [-1, 1.5, "5", True, 1 << 63])
def test_a_timeout_that_is_none_is_refused(timeout):
    """It would otherwise be ignored."""
    with pytest.raises(RequestError, match="timeout"):
        v2.timeout_us(v2.InferRequest(inputs=[], parameters={"timeout": timeout}))


def test_unknown_outputs_are_named():
    """With the ones that there are."""
    request = v2.InferRequest(inputs=[], outputs=[v2.RequestedOutput(name="q")])
    with pytest.raises(RequestError, match="unknown output 'q'; the outputs are x, s"):
        v2.check_outputs(MODEL, request)
