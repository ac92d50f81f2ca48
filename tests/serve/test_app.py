"""NVIDIA's unmodified client, and the recommendation route, against a real server process."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.http as triton

from tests.serve.conftest import BAD_USER, POPULAR


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
        assert client.get_server_metadata()["extensions"][0] == "binary_tensor_data"
        metadata = client.get_model_metadata("affine")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "ids", "datatype": "INT64", "shape": [-1]},
    ]


def test_recommend_ranks_by_inner_product_and_leaves_out_what_was_seen(client, recommend_server, table):
    """The route returns the best unseen items for the mean of the history's embeddings, best first."""
    history = ["i1", "i2", "i3"]
    body = {"history": history, "k": 7}
    answer = client.post(recommend_server.url + "/v1/recommend", json=body)
    scores = table @ table[[1, 2, 3]].mean(0)
    order = [i for i in np.argsort(-scores) if i not in (0, 1, 2, 3)][:7]
    assert answer.status_code == 200
    assert [i["item"] for i in answer.json()["items"]] == [f"i{i}" for i in order]
    np.testing.assert_allclose([i["score"] for i in answer.json()["items"]], scores[order], rtol=1e-5)


def test_recommend_through_the_v2_protocol_agrees_with_the_route(client, recommend_server):
    """BYTES histories and INT64 positions, padded, give each row what `/v1/recommend` gives that user."""
    histories = [["i5"], ["i1", "i9", "i2"]]
    expected = [
        client.post(recommend_server.url + "/v1/recommend", json={"history": h, "k": 4}).json()["items"]
        for h in histories
    ]
    ids = np.array([[b"", b"", b"i5"], [b"i1", b"i9", b"i2"]], dtype=object)
    positions = np.array([[0, 0, 5], [1, 9, 2]])
    with triton.InferenceServerClient(recommend_server.address) as asking:
        for name, dtype, data in (("history", "BYTES", ids), ("positions", "INT64", positions)):
            tensor = triton.InferInput(name, [2, 3], dtype)
            tensor.set_data_from_numpy(data)
            result = asking.infer("recommender", [tensor], parameters={"k": 4})
            got = result.as_numpy("items").astype(str).tolist()
            assert got == [[item["item"] for item in row] for row in expected]
            scores = [[item["score"] for item in row] for row in expected]
            np.testing.assert_allclose(result.as_numpy("scores"), scores, rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_client_may_compress_what_it_sends(generic_server, algorithm):
    """The header length counts the JSON before it was compressed."""
    with triton.InferenceServerClient(generic_server.address) as asking:
        result = asking.infer("affine", affine_inputs(True), request_compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("next"), [8, 0])


def test_triton_client_asks_many_things_at_once(generic_server):
    """Its asynchronous calls gather in batches, and each gets its own answer."""
    with triton.InferenceServerClient(generic_server.address, concurrency=16) as asking:
        calls = []
        for n in range(64):
            ids = triton.InferInput("ids", [1, 2], "INT64")
            ids.set_data_from_numpy(np.array([[n % 16, (n + 1) % 16]]))
            calls.append(asking.async_infer("lookup", [ids]))
        rows = [call.get_result().as_numpy("output")[0] for call in calls]
    for n in range(63):
        np.testing.assert_array_equal(rows[n][1], rows[n + 1][0])


def test_triton_client_is_told_what_is_wrong_in_its_own_words(generic_server):
    """Errors arrive as its exception with our sentence; a deadline in its `timeout` parameter is kept."""
    with triton.InferenceServerClient(generic_server.address) as asking:
        with pytest.raises(triton.InferenceServerException, match="unknown model 'nope'"):
            asking.infer("nope", affine_inputs(False))
        with pytest.raises(triton.InferenceServerException, match="'ids' is missing"):
            asking.infer("affine", affine_inputs(True)[:1])
        with pytest.raises(triton.InferenceServerException, match="cannot answer in the"):
            asking.infer("affine", affine_inputs(True), timeout=1)


def test_a_program_without_a_batch_dimension_gives_its_scalar(client, generic_server):
    """Shapes without dimensions are answered too, and never batched."""
    body = {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3.5]}]}
    outputs = client.post(generic_server.url + "/v2/models/total/infer", json=body).json()["outputs"]
    assert [(o["datatype"], o["shape"], o["data"]) for o in outputs] == [
        ("FP32", [], [6.5]),
        ("BOOL", [], [False]),
    ]


def test_a_deadline_that_cannot_be_met_is_refused(client, generic_server):
    """429 with `Retry-After`, also when it was stated in a header."""
    body = {"inputs": [{"name": "ids", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}
    url = generic_server.url + "/v2/models/lookup/infer"
    assert client.post(url, json=body).status_code == 200  # now the latency is known
    answer = client.post(url, json=body, headers={"x-deadline-ms": "0.001"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def test_head_and_escaped_paths_reach_the_same_route(client, generic_server):
    """HEAD is GET without a body; percent-encoding is undone; the version may be in the path."""
    url = generic_server.url + "/v2/models/affine"
    assert client.head(url).headers["content-length"] == client.get(url).headers["content-length"]
    assert client.get(generic_server.url + "/v2/models/%61ffine/versions/1").json() == client.get(url).json()
    refused = client.delete(url)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_answers_do_not_depend_on_who_else_is_in_the_batch(client, recommend_server):
    """Requests for different k in one batch each get their own k."""
    tensor = {"name": "history", "shape": [1, 1], "datatype": "BYTES", "data": ["i1"]}
    asked = {
        "/v1/recommend": {"history": ["i1"], "k": 9},
        "/v2/models/recommender/infer": {"inputs": [tensor], "parameters": {"k": 2}},
    }
    with ThreadPoolExecutor(16) as pool:
        calls = [
            pool.submit(client.post, recommend_server.url + path, json=body)
            for _ in range(40)
            for path, body in asked.items()
        ]
    answers = [call.result().json() for call in calls]
    assert {len(answer["items"]) for answer in answers[::2]} == {9}
    assert {tuple(answer["outputs"][0]["shape"]) for answer in answers[1::2]} == {(1, 2)}


def test_a_user_without_a_history_gets_the_popular_items(client, recommend_server):
    """In the package's order, through both routes; as many as it names."""
    answer = client.post(recommend_server.url + "/v1/recommend", json={"history": []}).json()
    assert [(i["item"], i["score"]) for i in answer["items"]] == [
        (f"i{n}", pytest.approx(1 / rank)) for rank, n in enumerate(POPULAR, 1)
    ]
    tensor = {"name": "positions", "shape": [2, 2], "datatype": "INT64", "data": [0, 0, 0, 5]}
    body = {"inputs": [tensor], "parameters": {"k": 2}}
    items = client.post(recommend_server.url + "/v2/models/recommender/infer", json=body).json()["outputs"][0]
    assert items["data"][:2] == ["i7", "i3"]
    assert set(items["data"][2:]).isdisjoint({"i5", ""})


def test_a_model_that_gives_nan_is_a_422_and_harms_nobody(client, recommend_server):
    """NaN sorts before every number: it is refused, not recommended, and only to the user it was computed for."""
    url = recommend_server.url + "/v1/recommend"
    bad = {"history": ["i1"], "user": {"age": BAD_USER}}
    with ThreadPoolExecutor(16) as pool:
        answers = [
            pool.submit(client.post, url, json=bad if n % 8 == 0 else {"history": ["i1"]}) for n in range(32)
        ]
    assert [f.result().status_code for f in answers] == [422 if n % 8 == 0 else 200 for n in range(32)]
    assert "rank gave NaN" in answers[0].result().json()["error"]
