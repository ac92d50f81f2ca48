"""Everything a client can get wrong is a clear 4xx in JSON, never a 500, and the server answers on."""

import gzip
import json
import zlib

import pytest

OK_X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
OK_IDS = {"name": "ids", "shape": [1], "datatype": "INT64", "data": [1]}


def infer(*inputs, **more) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def x(**changes) -> bytes:
    return infer(OK_X | changes, OK_IDS)


AFFINE = "/v2/models/affine/infer"
LOOKUP = "/v2/models/lookup/infer"
LENGTH = "Inference-Header-Content-Length"


def ids(data: list, **more) -> dict:
    return {"name": "ids", "shape": [1, len(data)], "datatype": "INT64", "data": data, **more}


CASES = [
    # path, body, headers, status, part of the message
    (AFFINE, b"", {}, 400, "not an inference request"),
    (AFFINE, b"{", {}, 400, "not an inference request"),
    (AFFINE, b"\xff\xfe", {}, 400, "not an inference request"),
    (AFFINE, b"[" * 100_000, {}, 400, "not an inference request"),
    (AFFINE, b'{"inputs": [{"data": ' + b"[" * 2000, {}, 400, "not an inference request"),
    (AFFINE, b"{}", {}, 400, "inputs"),
    (AFFINE, infer(), {}, 400, "'x' is missing"),
    (AFFINE, infer(OK_X), {}, 400, "'ids' is missing"),
    (AFFINE, infer(OK_X, OK_X, OK_IDS), {}, 400, "twice"),
    (AFFINE, infer(OK_X, OK_IDS, OK_IDS | {"name": "z"}), {}, 400, "unexpected input 'z'"),
    (AFFINE, x(datatype="FP31"), {}, 400, "datatype"),
    (AFFINE, x(datatype="INT64"), {}, 400, "datatype is FP32"),
    (AFFINE, x(shape=[1, 3]), {}, 400, "fill"),
    (AFFINE, x(shape=[1, 5], data=[1, 2, 3, 4, 5]), {}, 400, "does not fit"),
    (AFFINE, x(shape=[4]), {}, 400, "does not fit"),
    (AFFINE, x(shape=[-1, 4]), {}, 400, "shape"),
    (AFFINE, x(shape=[0, 4], data=[]), {}, 400, "'x'"),
    (AFFINE, x(shape=[2, 4], data=list(range(8))), {}, 400, "dimension 0"),
    (AFFINE, x(data=[1, 2, 3, "4"]), {}, 400, "FP32"),
    (AFFINE, x(data=[[1, 2], [3]]), {}, 400, "ragged"),
    (AFFINE, x(data=None), {}, 400, "data"),
    (AFFINE, x(data=[1, 2, 3, float("nan")]), {}, 400, "not an inference request"),
    (AFFINE, x(data=[1, 2, 3, 1e300]), {}, 400, "out of range"),
    (AFFINE, x(data=[1, 2, 3, 10**400]), {}, 400, ""),
    (AFFINE, infer({"name": "x", "shape": [1, 4], "datatype": "FP32"}, OK_IDS), {}, 400, "no data"),
    (AFFINE, infer(OK_X, OK_IDS, outputs=[{"name": "q"}]), {}, 400, "unknown output 'q'"),
    (
        AFFINE,
        infer(OK_X, OK_IDS, outputs=[{"name": "y", "parameters": {"classification": 2}}]),
        {},
        400,
        "class",
    ),
    (AFFINE, infer(OK_X, OK_IDS, parameters={"sequence_id": 3}), {}, 400, "sequences"),
    (AFFINE, x(parameters={"shared_memory_region": "r"}), {}, 400, "shared memory"),
    (AFFINE, infer(OK_X, OK_IDS, parameters={"timeout": "soon"}), {}, 400, "timeout"),
    (AFFINE, infer(OK_X, OK_IDS, id=7), {}, 400, "id"),
    (AFFINE, x() + b"tail", {}, 400, "not an inference request"),
    (AFFINE, x() + b"tail", {LENGTH: str(len(x()))}, 400, "4 bytes follow"),
    (AFFINE, x(), {LENGTH: "-1"}, 400, LENGTH),
    (AFFINE, x(), {LENGTH: "9" * 30}, 400, LENGTH),
    (AFFINE, x(), {LENGTH: "99999"}, 400, LENGTH),
    (AFFINE, x(), {LENGTH: "a"}, 400, LENGTH),
    (AFFINE, x(parameters={"binary_data_size": 16}), {}, 400, "binary_data_size"),
    (AFFINE, x(parameters={"binary_data_size": -1}), {}, 400, "binary_data_size"),
    (AFFINE, x(parameters={"binary_data_size": "16"}), {}, 400, "binary_data_size"),
    (AFFINE, x(), {"x-deadline-ms": "soon"}, 400, "x-deadline-ms"),
    (AFFINE, x(), {"content-encoding": "br"}, 415, "br"),
    (AFFINE, x(), {"content-encoding": "gzip"}, 400, "gzip"),
    (AFFINE, gzip.compress(x())[:-4], {"content-encoding": "gzip"}, 400, "gzip"),
    (AFFINE, gzip.compress(bytes(3 << 20)), {"content-encoding": "gzip"}, 413, "larger"),
    (AFFINE, zlib.compress(bytes(3 << 20)), {"content-encoding": "deflate"}, 413, "larger"),
    (AFFINE, bytes(3 << 20), {}, 413, "larger"),
    (LOOKUP, infer(ids([1, 2, 99])), {}, 422, "failed on this input"),
    (LOOKUP, infer(ids([-1])), {}, 422, "failed on this input"),
    (LOOKUP, infer(ids([1]) | {"shape": [65, 1], "data": [1] * 65}), {}, 400, "1 to 64"),
    ("/v2/models/nope/infer", x(), {}, 404, "unknown model 'nope'"),
    ("/v2/models/affine/versions/2/infer", x(), {}, 404, "unknown version"),
    ("/v2/models/affine/versions", x(), {}, 404, "unknown version"),
    ("/v2/models/affine/nothing", x(), {}, 404, "openapi.json"),
    ("/v2/nothing", b"", {}, 404, "openapi.json"),
    ("/v1/recommend", b"{}", {}, 404, "openapi.json"),
    ("/v2/health/live", b"", {}, 405, "use GET"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "why"), CASES, ids=range(len(CASES)))
def test_malformed_request_is_refused_clearly(client, generic_server, path, body, headers, status, why):
    """The answer is the expected 4xx with a JSON error that says what is wrong."""
    answer = client.post(generic_server.url + path, content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    assert set(answer.json()) == {"error"}
    assert why in answer.json()["error"]
    assert client.post(generic_server.url + AFFINE, content=x()).status_code == 200


def test_a_chunked_body_over_the_limit_is_cut_off(client, generic_server):
    """Without a stated length the body is counted as it comes, and refused at the limit."""
    answer = client.post(generic_server.url + AFFINE, content=(bytes(1 << 16) for _ in range(64)))
    assert answer.status_code == 413


RECOMMEND = [
    ({"history": ["i1", "nope"]}, "unknown item 'nope'"),
    ({"history": [1]}, "unknown item '1'"),
    ({"history": [""]}, "unknown item ''"),
    ({"history": ["i1"], "k": 0}, "k"),
    ({"history": ["i1"], "k": 21}, "1 to 20"),
    ({"history": ["i1"], "k": "3"}, "k"),
    ({"history": "i1"}, "history"),
    ({"history": [None]}, "history"),
    ({"history": [{"item": "i1", "timestamp": -1}]}, "timestamp"),
    ({"history": [{"item": "i1", "timestamp": 5}, "i2"]}, "timestamp"),
    ({"history": [{"item": "i1", "rating": 1e39}]}, "rating"),
    ({"history": ["i1"], "now": 1e300}, "now"),
    ({"history": ["i1"], "user": {"agee": 1}}, "unknown user feature 'agee'; this model has age, vip"),
    ({"history": ["i1"], "user": {"age": 1e39}}, "age"),
    ({"history": ["i1"], "ks": 1}, "ks"),
    ({}, "history"),
    ([], "recommendation request"),
]


@pytest.mark.parametrize(("body", "why"), RECOMMEND)
def test_malformed_recommendation_is_refused_clearly(client, recommend_server, body, why):
    """The answer is a 400 with a JSON error that names the field or the item."""
    answer = client.post(recommend_server.url + "/v1/recommend", json=body)
    assert answer.status_code == 400
    assert why in answer.json()["error"]


@pytest.mark.parametrize(
    ("history", "shape", "why"),
    [
        (["i1", "nope"], [1, 2], "unknown item"),
        (["i1", "i2"], [2], "does not fit"),
        (["i1"], [1, 2], "strings"),
    ],
)
def test_malformed_history_tensor_is_refused_clearly(client, recommend_server, history, shape, why):
    """The v2 face of the recommender refuses as clearly as its own route."""
    tensor = {"name": "history", "shape": shape, "datatype": "BYTES", "data": history}
    answer = client.post(recommend_server.url + "/v2/models/recommender/infer", content=infer(tensor))
    assert answer.status_code == 400
    assert why in answer.json()["error"]


@pytest.mark.parametrize("position", [-1, 41, 1 << 62])
def test_a_position_outside_the_catalogue_is_refused(client, recommend_server, position):
    """Positions are checked before they reach the model."""
    tensor = {"name": "positions", "shape": [1, 1], "datatype": "INT64", "data": [position]}
    answer = client.post(recommend_server.url + "/v2/models/recommender/infer", content=infer(tensor))
    assert answer.status_code == 400
    assert "unknown item position" in answer.json()["error"]


UNUSUAL = [
    ["i1"],
    [{"item": "i1"}],
    ["i1"] * 500,
    [f"i{n}" for n in range(1, 41)],
    [f"i{n}" for n in range(1, 38)],
]


@pytest.mark.parametrize("history", UNUSUAL, ids=range(len(UNUSUAL)))
def test_histories_that_are_fine_although_unusual(client, recommend_server, history):
    """Repeated, very long, (nearly) everything-seen histories get what is left, none of it seen."""
    answer = client.post(recommend_server.url + "/v1/recommend", json={"history": history})
    assert answer.status_code == 200
    seen = {h["item"] if isinstance(h, dict) else h for h in history}
    items = [i["item"] for i in answer.json()["items"]]
    assert len(items) == len(set(items)) == min(10, 40 - len(seen))
    assert not seen & set(items)
