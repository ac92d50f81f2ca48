"""Who may come in: the key decides the tenant, and goes no further."""

import pytest

from tradewind.serve.errors import RequestError
from tradewind.serve.gate import Gate
from tradewind.serve.http import Request
from tradewind.serve.keys import KeyFile, Keys, Tenant, new_key

KEY = new_key()


def keys(open_metrics: bool = False, **limits: object) -> Keys:
    return Keys(KeyFile(tenants={"shop": Tenant(keys=(KEY.sha256,), **limits)}, open_metrics=open_metrics))


def request(**headers: str) -> Request:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request("POST", "/", named, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY.key}"},
        {"authorization": f"bearer  {KEY.key} "},
        {"x_api_key": KEY.key},
    ],
)
def test_the_key_decides_the_tenant_whatever_the_client_claims(headers):
    """And is gone from the request afterwards, so that nothing can write it down."""
    asked = request(x_tenant="other", **headers)
    Gate(keys()).admit(asked, "infer")
    assert asked.headers == {b"x-tenant": b"shop"}
    assert asked.quota.tenant == "shop"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Basic abc"},
        {"authorization": "Bearer wrong"},
        {"x_api_key": KEY.sha256},
        {"x_api_key": "\xff"},
    ],
)
@pytest.mark.parametrize("route", ["infer", "metadata", "metrics", "none"])
def test_without_a_known_key_nothing_but_health_is_answered(headers, route):
    """401; a probe needs no key, and gets no tenant."""
    gate = Gate(keys())
    with pytest.raises(RequestError) as caught:
        gate.admit(request(**headers), route)
    assert caught.value.status == 401
    probe = request(x_tenant="shop", **headers)
    gate.admit(probe, "health")
    assert b"x-tenant" not in probe.headers
    assert probe.quota is None


def test_metrics_are_open_where_the_file_says_so():
    """And nothing else is."""
    gate = Gate(keys(open_metrics=True))
    gate.admit(request(), "metrics")
    with pytest.raises(RequestError):
        gate.admit(request(), "metadata")


def test_a_request_too_large_for_its_tenant_is_refused_by_its_head():
    """413, before a byte of its body is read."""
    with pytest.raises(RequestError, match="max_request_mib") as caught:
        Gate(keys(max_request_mib=1.0)).admit(
            request(x_api_key=KEY.key, content_length=str(1 << 21)), "infer"
        )
    assert caught.value.status == 413


def test_a_key_that_is_taken_out_opens_nothing_any_more():
    """At once; what its tenant has in flight stays counted for when it comes back."""
    gate, asked = Gate(keys(in_flight=1)), request(x_api_key=KEY.key)
    gate.admit(asked, "infer")
    asked.quota.take(0.0)
    gate.adopt(Keys(KeyFile(tenants={})))
    with pytest.raises(RequestError):
        gate.admit(request(x_api_key=KEY.key), "infer")
    gate.adopt(keys(in_flight=1))
    again = request(x_api_key=KEY.key)
    gate.admit(again, "infer")
    assert again.quota is asked.quota
