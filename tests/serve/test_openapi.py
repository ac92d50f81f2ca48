"""Every route does what the OpenAPI description says, under generated requests. (That it describes every route,
and no other: tests/serve/test_replica.py.)"""

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error  # noqa: F401 - registers the checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serve.conftest import NUM_ITEMS

UNSTATED = [positive_data_acceptance]
"""That a shape's product is the number of elements, or that an item is known, JSON Schema cannot say."""
INFER = ["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"]
ROUTES = [
    "/metrics",
    "/openapi.json",
    "/v1/recommend",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/stats",
    "/v2/repository/index",
    *(
        route.removesuffix("/infer") + suffix
        for route in INFER
        for suffix in ("", "/config", "/stats", "/ready", "/infer")
    ),
]
PATIENT = {"x-deadline-ms": "60000"}

items = st.integers(1, NUM_ITEMS).map(lambda n: f"i{n}")
histories = st.lists(items, max_size=30)


def generating(examples: int):
    """Settings of a test whose requests go to a server."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture(scope="module")
def operations(client, recommend_server) -> dict:
    """Every operation of the server's own description, by path."""
    schema = schemathesis.openapi.from_dict(client.get(recommend_server.url + "/openapi.json").json())
    return {result.ok().path: result.ok() for result in schema.get_all_operations()}


def test_these_are_the_routes(operations):
    """The list below leaves none out."""
    assert sorted(operations) == sorted(ROUTES)


def check(operation, session, url: str, mode: GenerationMode, examples: int) -> int:
    """Send generated requests and hold the answers to the description; return how many were sent."""
    sent = 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @generating(examples)
    def conforms(case):
        nonlocal sent
        sent += 1
        case.call_and_validate(base_url=url, session=session, excluded_checks=UNSTATED)

    conforms()
    return sent


@pytest.mark.parametrize("path", ROUTES)
def test_route_conforms_to_its_description(operations, session, recommend_server, path):
    """Requests that fit the description get a described answer: status, content type, schema, never a 5xx."""
    assert check(operations[path], session, recommend_server.url, GenerationMode.POSITIVE, 20) >= 1


@pytest.mark.parametrize("path", ["/v1/recommend", *INFER])
def test_route_refuses_what_its_description_excludes(operations, session, recommend_server, path):
    """Requests that break the description get a described 4xx."""
    assert check(operations[path], session, recommend_server.url, GenerationMode.NEGATIVE, 20) >= 10


@st.composite
def inferences(draw) -> dict:
    """Requests that the model can answer: histories by id or position, padded to one length."""
    rows = draw(st.lists(histories, min_size=1, max_size=5))
    width = max(1, *map(len, rows))
    by_id = draw(st.booleans())
    padded = [(row + [""] * (width - len(row))) for row in rows]
    data = padded if by_id else [[int(item[1:] or 0) if item else 0 for item in row] for row in padded]
    name, datatype = ("history", "BYTES") if by_id else ("positions", "INT64")
    tensor = {"name": name, "shape": [len(rows), width], "datatype": datatype, "data": data}
    wanted = draw(st.lists(st.sampled_from(["items", "scores"]), unique=True))
    parameters = draw(
        st.fixed_dictionaries({}, optional={"k": st.integers(1, 20), "exclude_seen": st.booleans()})
    )
    return {
        "inputs": [tensor],
        "outputs": [{"name": n} for n in wanted],
        "parameters": parameters,
        "id": draw(st.text()),
    }


@pytest.mark.parametrize("path", INFER)
def test_inferences_that_succeed_conform_to_the_description(operations, session, recommend_server, path):
    """What a generated request hardly ever is: answered. Its 200 has the schema that the description gives."""

    @given(body=inferences())
    @generating(20)
    def succeeds(body):
        parameters = {"model": "recommender"} | ({"version": "1"} if "{version}" in path else {})
        case = operations[path].Case(
            path_parameters=parameters, headers=dict(PATIENT), body=body, media_type="application/json"
        )
        response = case.call_and_validate(base_url=recommend_server.url, session=session)
        assert response.status_code == 200
        assert response.json()["id"] == body["id"] if body["id"] else "id" not in response.json()

    succeeds()


recommendations = st.fixed_dictionaries(
    {
        "history": st.lists(
            items | st.fixed_dictionaries({"item": items, "rating": st.floats(0, 5)}), max_size=30
        )
    },
    optional={
        "k": st.integers(1, 20),
        "exclude_seen": st.booleans(),
        "now": st.floats(0, 2e9),
        "user": st.dictionaries(st.sampled_from(["age", "vip"]), st.floats(0, 100)),
    },
)


def test_recommendations_that_succeed_conform_to_the_description(operations, session, recommend_server):
    """Every well-formed request with known items is answered with the described 200."""

    @given(body=recommendations)
    @generating(20)
    def succeeds(body):
        case = operations["/v1/recommend"].Case(
            headers=dict(PATIENT), body=body, media_type="application/json"
        )
        response = case.call_and_validate(base_url=recommend_server.url, session=session)
        assert response.status_code == 200

    succeeds()
