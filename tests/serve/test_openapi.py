"""Every route does what the OpenAPI description says, under generated requests."""

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error  # noqa: F401 - registers the checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

UNSTATED = [positive_data_acceptance]
"""That a shape's product is the number of elements, or that an item is known, JSON Schema cannot say."""
ROUTES = {
    "/metrics",
    "/openapi.json",
    "/v1/recommend",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    *(
        base + suffix
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        for suffix in ("", "/ready", "/infer")
    ),
}


def check_route(server, path: str, mode: GenerationMode) -> int:
    """Send generated requests to every operation of `path`; return how many were sent."""
    description = httpx2.get(server.url + "/openapi.json").json()
    schema = schemathesis.openapi.from_dict(description)
    sent = 0
    with requests.Session() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path != path:
                continue

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=40,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            def conforms(case):
                nonlocal sent
                sent += 1
                case.call_and_validate(base_url=server.url, session=session, excluded_checks=UNSTATED)

            conforms()
    return sent


@pytest.mark.parametrize("path", sorted(ROUTES))
def test_route_conforms_to_its_description(recommend_server, path):
    """Requests that fit the description get a described answer: status, content type, schema, never a 5xx."""
    assert check_route(recommend_server, path, GenerationMode.POSITIVE) >= 1


@pytest.mark.parametrize("path", sorted(p for p in ROUTES if p.endswith(("infer", "recommend"))))
def test_route_refuses_what_its_description_excludes(recommend_server, path):
    """Requests that break the description get a described 4xx."""
    assert check_route(recommend_server, path, GenerationMode.NEGATIVE) >= 10


def test_the_description_names_every_route(recommend_server):
    """No route is served that the description leaves out."""
    description = httpx2.get(recommend_server.url + "/openapi.json").json()
    assert set(description["paths"]) == ROUTES
