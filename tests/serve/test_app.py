"""NVIDIA's unmodified client, and the recommendation route, against a real server process."""

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton


def affine_inputs(binary: bool) -> list[triton.InferInput]:
    x = triton.InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(np.arange(8, dtype=np.float32).reshape(2, 4), binary_data=binary)
    ids = triton.InferInput("ids", [2], "INT64")
    ids.set_data_from_numpy(np.array([7, -1]), binary_data=binary)
    return [x, ids]


@pytest.mark.parametrize("sent_binary", [False, True])
@pytest.mark.parametrize("asked_binary", [False, True])
def test_triton_client_gets_the_programs_own_answer(generic_server, sent_binary, asked_binary):
    """Tensors go in and come out bit for bit, as JSON and as binary data, in any mixture."""
    with triton.InferenceServerClient(generic_server.address) as client:
        outputs = [triton.InferRequestedOutput(n, binary_data=asked_binary) for n in ("next", "y")]
        result = client.infer("affine", affine_inputs(sent_binary), outputs=outputs, request_id="r1")
    expected = np.arange(8, dtype=np.float32).reshape(2, 4) * 2 + 1
    np.testing.assert_array_equal(result.as_numpy("y"), expected)
    np.testing.assert_array_equal(result.as_numpy("next"), [8, 0])
    assert result.get_response()["id"] == "r1"


def test_triton_client_reads_health_and_metadata(generic_server):
    """Health, readiness and metadata calls of the client answer what the package says."""
    with triton.InferenceServerClient(generic_server.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("affine")
        assert client.is_model_ready("affine", "1")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("affine")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "ids", "datatype": "INT64", "shape": [-1]},
    ]


def test_recommend_ranks_by_inner_product_and_leaves_out_what_was_seen(recommend_server, table):
    """The route returns the best unseen items for the mean of the history's embeddings, best first."""
    history = ["i1", "i2", "i3"]
    body = {"history": history, "k": 7}
    answer = httpx2.post(recommend_server.url + "/v1/recommend", json=body)
    scores = table @ table[[1, 2, 3]].mean(0)
    order = [i for i in np.argsort(-scores) if i not in (0, 1, 2, 3)][:7]
    assert answer.status_code == 200
    assert [i["item"] for i in answer.json()["items"]] == [f"i{i}" for i in order]
    np.testing.assert_allclose([i["score"] for i in answer.json()["items"]], scores[order], rtol=1e-5)


def test_recommend_through_the_v2_protocol_agrees_with_the_route(recommend_server):
    """BYTES histories and INT64 positions, padded, give each row what `/v1/recommend` gives that user."""
    histories = [["i5"], ["i1", "i9", "i2"]]
    expected = [
        httpx2.post(recommend_server.url + "/v1/recommend", json={"history": h, "k": 4}).json()["items"]
        for h in histories
    ]
    ids = np.array([[b"", b"", b"i5"], [b"i1", b"i9", b"i2"]], dtype=object)
    positions = np.array([[0, 0, 5], [1, 9, 2]])
    with triton.InferenceServerClient(recommend_server.address) as client:
        for name, dtype, data in (("history", "BYTES", ids), ("positions", "INT64", positions)):
            tensor = triton.InferInput(name, [2, 3], dtype)
            tensor.set_data_from_numpy(data)
            result = client.infer("recommender", [tensor], parameters={"k": 4})
            got = result.as_numpy("items").astype(str).tolist()
            assert got == [[item["item"] for item in row] for row in expected]
            scores = [[item["score"] for item in row] for row in expected]
            np.testing.assert_allclose(result.as_numpy("scores"), scores, rtol=1e-6)
