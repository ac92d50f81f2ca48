"""Inference by each of NVIDIA's unmodified clients: every datatype, and everything a request may say beside tensors."""

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import np_to_triton_dtype

from tests.serve.triton.clients import Refused

ARRAYS = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [1, 2]], np.uint8),
    "UINT16": np.array([[0, 65535], [1, 2]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [1, 2]], np.uint64),
    "INT8": np.array([[-128, 127], [1, 2]], np.int8),
    "INT16": np.array([[-32768, 32767], [1, 2]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [1, 2]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [1, 2]], np.int64),
    "FP16": np.array([[0.5, -65504.0], [1, 2]], np.float16),
    "BF16": np.array([[0.5, -2.0], [1, 3]], ml_dtypes.bfloat16),
    "FP32": np.array([[0.5, -3.4e38], [1, 2]], np.float32),
    "FP64": np.array([[0.5, -1.7e308], [1, 2]], np.float64),
}
RAW_ONLY = ("FP16", "BF16")
X = ARRAYS["FP32"]


def infer(client, array=X, model="fp32", **options):
    return client.call("infer", model, [client.input("x", array)], **options)


@pytest.mark.parametrize("asked_binary", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("sent_binary", [True, False], ids=["binary in", "json in"])
def test_every_datatype_there_and_back(client, sent_binary, asked_binary):
    """Bit for bit, in either form; FP16 and BF16, and everything that these clients send over gRPC, in one only."""
    inputs = [
        client.input("bool_" if dtype == "BOOL" else dtype.lower(), array, sent_binary or dtype in RAW_ONLY)
        for dtype, array in ARRAYS.items()
    ]
    outputs = [client.output(dtype, asked_binary or dtype in RAW_ONLY) for dtype in ARRAYS]
    result = client.call("infer", "every", inputs, outputs=outputs)
    for dtype, array in ARRAYS.items():
        given = result.as_numpy(dtype)
        assert given.dtype == array.dtype
        np.testing.assert_array_equal(given, array)


@pytest.mark.parametrize("binary", [True, False])
def test_strings_there_and_back(recommend_client, binary):
    """BYTES: a history of item ids in, item ids out."""
    client = recommend_client
    history = client.input("history", np.array([["i1", "i2"]], dtype=object), binary)
    outputs = [client.output("items", binary), client.output("scores", binary)]
    result = client.call("infer", "recommender", [history], outputs=outputs)
    items = [item if isinstance(item, str) else item.decode() for item in result.as_numpy("items")[0]]
    assert len(items) == 10
    assert all(item.startswith("i") and item not in ("i1", "i2") for item in items)
    assert result.as_numpy("scores").shape == (1, 10)


def test_parameters_of_the_model_reach_it(recommend_client):
    """How many items are wanted."""
    client = recommend_client
    positions = client.input("positions", np.array([[1, 2]]))
    result = client.call("infer", "recommender", [positions], parameters={"k": 3, "exclude_seen": False})
    assert result.as_numpy("items").shape == (1, 3)


def test_all_that_may_be_said_beside_tensors_at_once(client):
    """Request id, version, priority, timeout and headers."""
    result = infer(
        client,
        model_version="1",
        request_id="r-1",
        priority=2,
        timeout=5_000_000,
        headers={"x-request-id": "mine"},
    )
    assert client.id_of(result) == "r-1"
    np.testing.assert_array_equal(result.as_numpy("y"), X)


def test_a_timeout_that_cannot_be_held_is_refused_at_once(client):
    """A microsecond: too many requests, over gRPC exhausted."""
    with pytest.raises(Refused) as caught:
        infer(client, timeout=1)
    assert caught.value.status() == ("429" if client.over_http else "StatusCode.RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("response", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_", [None, "gzip", "deflate"])
def test_compression(client, request_, response):
    """Each algorithm in each direction, on bodies large enough to be worth it."""
    array = np.arange(128, dtype=np.float32).reshape(64, 2) % 7
    if client.over_http:
        options = {"request_compression_algorithm": request_, "response_compression_algorithm": response}
    else:
        options = {"compression_algorithm": request_}
    result = client.call("infer", "fp32", [client.input("x", array)], **options)
    np.testing.assert_array_equal(result.as_numpy("y"), array)


@pytest.mark.parametrize(
    ("array", "name", "model", "why"),
    [
        (X, "z", "fp32", "unexpected input 'z'"),
        (X, "x", "int64", "datatype is INT64"),
        (X[:, :1], "x", "fp32", "does not fit"),
        (np.zeros((65, 2), np.float32), "x", "fp32", "1 to 64"),
        (np.array([[np.nan, 1]], np.float32), "x", "fp32", "NaN"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(client, array, name, model, why):
    """A malformed request is the client's fault, whatever carries it."""
    with pytest.raises(Refused, match=why) as caught:
        client.call("infer", model, [client.input(name, array)])
    assert caught.value.status() == ("400" if client.over_http else "StatusCode.INVALID_ARGUMENT")


def test_an_unknown_output_is_named(client):
    """With those there are."""
    with pytest.raises(Refused, match="unknown output 'q'"):
        infer(client, outputs=[client.output("q")])


@pytest.mark.parametrize("model", ["nope", ""])
def test_an_unknown_model_is_named(client, model):
    """Not found."""
    with pytest.raises(Refused) as caught:
        infer(client, model=model)
    assert caught.value.status() in ("404", "StatusCode.NOT_FOUND")


@pytest.mark.parametrize(
    "more",
    [{"sequence_id": 7, "sequence_start": True}, {"sequence_id": "seven"}],
)
def test_sequences_are_unsupported(client, more):
    """Each request stands alone."""
    with pytest.raises(Refused, match="sequences are not supported"):
        infer(client, **more)


def test_tensors_in_shared_memory_are_unsupported(client):
    """An input or an output that names a region."""
    tensor = client.input("x", X)
    tensor.set_shared_memory("region", 16)
    with pytest.raises(Refused, match="shared memory is not supported"):
        client.call("infer", "fp32", [tensor])
    output = client.output("y")
    output.set_shared_memory("region", 16)
    with pytest.raises(Refused, match="shared memory is not supported"):
        infer(client, outputs=[output])


def test_classification_is_unsupported(client):
    """The client gets told to ask for the tensor."""
    output = client.module.InferRequestedOutput("y", class_count=2)
    with pytest.raises(Refused, match="classification is not supported"):
        infer(client, outputs=[output])


def test_a_stream_answers_each_request_once_and_in_order(same_server):
    """Errors among them do not end it."""
    import queue

    answers: queue.Queue = queue.Queue()
    with grpc.InferenceServerClient(same_server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for i in range(5):
            array = np.full((1, 2), i, np.float32 if i != 2 else np.int32)
            tensor = grpc.InferInput("x", [1, 2], np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            client.async_stream_infer("fp32", [tensor], request_id=str(i))
        for i in range(5):
            result, error = answers.get(timeout=60)
            if i == 2:
                assert "datatype is FP32" in str(error)
            else:
                assert result.get_response().id == str(i)
                assert result.as_numpy("y")[0, 0] == i
        client.stop_stream()
