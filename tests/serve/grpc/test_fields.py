"""What is looked at before a message is parsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve.errors import RequestError
from tradewind.serve.grpc.fields import MAX_FIELDS, check, fields, model_name
from tradewind.serve.grpc.messages import REQUESTS


def message(**more: object) -> bytes:
    return REQUESTS["ModelInfer"](model_name="net", id="7", **more).SerializeToString()


def test_fields_are_where_they_are():
    """Number and content of each, in order."""
    data = message(raw_input_contents=[b"abc", b""])
    assert [(f.number, data[f.start : f.end]) for f in fields(data)] == [
        (1, b"net"),
        (3, b"7"),
        (7, b"abc"),
        (7, b""),
    ]
    assert model_name(data) == "net"


def test_a_message_of_very_many_fields_is_refused_unparsed():
    """Two bytes each on the wire, a hundred in memory."""
    check(b"\x2a\x00" * MAX_FIELDS)
    with pytest.raises(RequestError, match="more than"):
        check(b"\x2a\x00" * (MAX_FIELDS + 1))


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\xff" * 20, b"\x09abc", b"\x0a" + b"\xff" * 9 + b"\x01"]
)
def test_what_is_no_message_is_refused(data):
    """And has no model's name."""
    with pytest.raises(RequestError):
        check(data)
    assert model_name(data) == ""


@given(st.binary(max_size=60))
def test_any_bytes_are_walked_or_refused(data):
    """Every field lies inside the message, and the walk ends."""
    try:
        found = list(fields(data))
    except RequestError:
        return
    assert all(0 <= f.start <= f.end <= len(data) for f in found)
    assert [f.end for f in found] == sorted(f.end for f in found)
