"""Users from a file: what a line may be, and that the file says what a store elsewhere would."""

import asyncio
import math
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.serve.features.scripted import samples
from tradewind.errors import SpecError
from tradewind.serve.catalogue import Event
from tradewind.serve.features import Fetched, Outcome, Stored, encode
from tradewind.serve.features.base import MAX_VALUE_BYTES, Malformed, decode
from tradewind.serve.features.embedded import Embedded
from tradewind.serve.features.metrics import FeatureMetrics
from tradewind.serve.history import Columns

LINES = b"""{"id": "u1", "history": ["a", {"item": 3}], "user": {"age": 30}}

{"id": 2}
"""


def embedded(path: pathlib.Path, text: bytes, registry: CollectorRegistry | None = None) -> Embedded:
    path.write_bytes(text)
    return Embedded(path, FeatureMetrics(registry or CollectorRegistry()))


def test_a_users_line_is_found_at_once(tmp_path):
    """By an id that is text or a number, whatever time there is; counted."""
    registry = CollectorRegistry()
    source = embedded(tmp_path / "users.jsonl", LINES, registry)
    assert source.fetch("u1", 0.0) == Fetched(
        Outcome.HIT, Stored(Columns(["a", 3], None, [0.0, 0.0]), {"age": 30.0})
    )
    assert source.fetch("2", 0.0) == Fetched(Outcome.HIT, Stored(Columns([]), {}))
    assert source.fetch("3", 0.0) == Fetched(Outcome.MISSING)
    found = samples(registry)
    assert (found["fetches_total hit"], found["fetches_total missing"], found["down"]) == (2, 1, 0)
    asyncio.run(source.start())
    asyncio.run(source.close())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "JSON is malformed|truncated"),
        (b'{"history": []}', "id"),
        (b'{"id": "x", "histroy": []}', "histroy"),
        (b'{"id": "x", "history": [{"item": "a", "timestamp": 3}, "b"]}', "every event a timestamp"),
        (b'{"id": "x", "user": {"age": 1e39}}', "out of range"),
        (b'{"id": "u1"}', "user 'u1' is there twice"),
        (b'{"id": "x", "history": ["%s"]}' % (b"a" * MAX_VALUE_BYTES), "bytes"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, text, why):
    """File, line and what is wrong, before anything is served."""
    path = tmp_path / "users.jsonl"
    with pytest.raises(SpecError, match=why) as caught:
        embedded(path, LINES + text)
    assert str(caught.value).startswith(f"{path}:4: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"nobody\.jsonl: the feature store cannot be read: No such file"):
        Embedded(tmp_path / "nobody.jsonl", FeatureMetrics(CollectorRegistry()))


entries = (
    st.text(min_size=1, max_size=5)
    | st.integers(0, 99)
    | st.builds(Event, st.text(min_size=1, max_size=5), st.just(7.0), st.floats(-5, 5, width=32))
)


@settings(max_examples=50)
@given(st.lists(entries, max_size=5), st.dictionaries(st.text(max_size=5), st.floats(-9, 9)))
def test_what_is_encoded_is_what_is_read(history, user):
    """A document means what a request with the same parts means, and is not made where that is a 400."""
    kinds = {isinstance(entry, Event) for entry in history}
    if len(kinds) > 1:
        with pytest.raises(SpecError, match="give every event a timestamp"):
            encode(history, user)
        return
    stored = decode(encode(history, user))
    assert list(stored.history.items) == [e.item if isinstance(e, Event) else e for e in history]
    assert stored.user == user


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"\x80",
        b"[" * 100_000,
        b'{"history": [null]}',
        b'{"user": {"a": "b"}}',
        b" " * (MAX_VALUE_BYTES + 1),
    ],
)
def test_what_is_no_document_is_malformed(value):
    with pytest.raises(Malformed):
        decode(value)


@pytest.mark.parametrize(
    ("history", "user"),
    [([None], {}), ([{"id": 3}], {}), ([], {"age": math.nan}), (["a" * MAX_VALUE_BYTES], {})],
)
def test_what_would_be_malformed_is_not_made(history, user):
    """Whoever writes it hears so, not whoever reads it."""
    with pytest.raises(SpecError, match="not a user's document"):
        encode(history, user)


def test_what_others_keep_in_a_document_is_theirs():
    """Unknown fields are not looked at."""
    assert decode(b'{"history": ["a"], "segments": [1, {"x": null}]}') == Stored(Columns(["a"]), {})
