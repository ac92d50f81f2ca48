"""Which handler answers a path, and what is said where there is none."""

import pytest

from tradewind.serve.errors import RequestError
from tradewind.serve.http import Request, Response
from tradewind.serve.routes import Route, Routes

OK = Response(200, b"ok")


def routes() -> Routes:
    table = {
        "/live": Route("health", "GET", lambda request: OK),
        "/v2/models/a b/infer": Route("infer", "POST", lambda request: OK),
    }
    return Routes(table, {"a b": None}, "3")


def ask(method: str, path: str) -> Response:
    request = Request(method, path, {}, True)
    return routes().find(request).handle(request)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/live"), ("HEAD", "/live"), ("POST", "/v2/models/a%20b/infer"), ("GET", "/%6Cive")],
)
def test_a_path_is_found_however_it_is_encoded(method, path):
    """HEAD goes where GET does."""
    assert ask(method, path) is OK


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/live", "GET, HEAD"),
        ("GET", "/v2/models/a%20b/infer", "POST"),
        ("HEAD", "/v2/models/a%20b/infer", "POST"),
    ],
)
def test_a_method_that_is_not_allowed_is_told_which_is(method, path, allowed):
    """405 with an `Allow` header."""
    response = ask(method, path)
    assert (response.status, dict(response.headers)["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/nothing", "openapi.json"),
        ("", "openapi.json"),
        ("//live", "openapi.json"),
        ("/v2/models/x/infer", "unknown model 'x'; this server has a b"),
        ("/v2/models/a%20b/versions/4/infer", "unknown version '4' of 'a b'; it is 3"),
        ("/v2/models/a%20b/versions/3/nothing", "openapi.json"),
        ("/v2/models/" + "x" * 1000, "unknown model '" + "x" * 80 + "'"),
    ],
)
def test_a_path_that_is_not_there_is_told_what_is(path, why):
    """404 that names the model, the version, or where to look."""
    with pytest.raises(RequestError) as caught:
        ask("GET", path)
    assert caught.value.status == 404
    assert why in str(caught.value)
