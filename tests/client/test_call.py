"""Requests as bytes, and answers as results or errors."""

import pytest

from tradewind.client import call as calls
from tradewind.client.aio import AsyncClient
from tradewind.client.connection import Answer, parse_url
from tradewind.client.errors import BrokenAnswer, Refused
from tradewind.errors import SpecError


def test_a_request_says_where_it_goes_and_how_long_it_has() -> None:
    """Path prefix, host, deadline, id, length, then the body."""
    call = calls.make("POST", "/v1/x", [b"ab", b"c"], headers={"x-tenant": "t"}, request_id="id1")
    head, *body = call.to_bytes(parse_url("http://[::1]:80/base/"), 12.3456)
    assert head.split(b"\r\n") == [
        b"POST /base/v1/x HTTP/1.1", b"host: [::1]:80", b"x-deadline-ms: 12.346", b"x-request-id: id1",
        b"content-length: 3", b"x-tenant: t", b"", b"",
    ]  # fmt: skip
    assert body == [b"ab", b"c"]


@pytest.mark.parametrize(
    "header", [{"x": "a\r\nb: c"}, {"a\nb": "c"}, {"x": "\u00e9"}, {"": "x"}, {"a:b": "c"}]
)
def test_a_header_cannot_carry_another(header: dict[str, str]) -> None:
    """Line breaks and what is not ASCII are refused before anything is sent."""
    with pytest.raises(SpecError, match="printable ASCII"):
        calls.make("GET", "/", headers=header)
    with pytest.raises(SpecError, match="printable ASCII"):
        calls.make("GET", "/", request_id="a\r\nb")


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:80", "http://", "http://h:99999", "http://h/?a=1"])
def test_what_is_no_endpoint_says_how_one_is_written(url: str) -> None:
    """A URL of another kind is refused with its text."""
    with pytest.raises(SpecError):
        AsyncClient(url)
    with pytest.raises(SpecError, match="needs an endpoint"):
        AsyncClient([])


def test_what_the_server_leaves_out_is_left_out() -> None:
    """Defaults are the server's own."""
    assert calls.recommend_body(["1"], None, None, True, None) == b'{"history":["1"]}'
    full = calls.recommend_body(["1"], 3, {"age": 1.0}, False, 5.0)
    assert calls.recommend_body(["1"], None, None, True, None, {"op": "flag", "field": "new"}) == (
        b'{"history":["1"],"filter":{"op":"flag","field":"new"}}'
    )
    assert full == b'{"history":["1"],"k":3,"user":{"age":1.0},"exclude_seen":false,"now":5.0}'


def test_a_refusal_keeps_its_retry_after_and_a_stranger_is_broken() -> None:
    """Seconds are read; a date is none; a redirect is not followed."""
    for text, seconds in (("2", 2.0), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("-1", None)):
        with pytest.raises(Refused) as caught:
            calls.check(Answer(429, {"retry-after": text}, b'{"error": "busy"}'), "http://h")
        assert caught.value.retry_after_s == seconds
        assert str(caught.value) == "http://h: 429: busy"
    with pytest.raises(BrokenAnswer, match="302"):
        calls.check(Answer(302, {}, b"moved"), "http://h")
    with pytest.raises(BrokenAnswer, match="not a recommendation"):
        calls.read_recommendation(Answer(200, {}, b"[]"), "http://h", "")
    level = calls.read_recommendation(
        Answer(200, {"x-level": "popular"}, b'{"model":"m","items":[]}'), "", ""
    )
    assert level.level == "popular"
