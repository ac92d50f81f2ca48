"""A stored history and a request's own as one: in order, column by column, in the model's words."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve.catalogue import Catalogue
from tradewind.serve.features import encode
from tradewind.serve.features.base import decode
from tradewind.serve.features.past import past_of
from tradewind.serve.protocols import recommend

NOW = 1000
ITEMS = ["", "a", "b", "3", "c"]
CATALOGUE = Catalogue(ITEMS, {"user_features": ["age", "vip"], "max_history": 6}, 4, clock=lambda: NOW)
KINDS = {"INT64": np.int64, "FP32": np.float32}


def row(
    history: list[Any], stored: list[Any] | None = None, user: Any = None, known: Any = None, **body: Any
) -> dict:
    """The tensors of a request, as lists."""
    past = None
    if stored is not None:
        past, _ = past_of(decode(encode(stored, known)), CATALOGUE)
    text = json.dumps({"history": history, "user": user or {}, **body})
    prepared, _ = recommend.prepare(recommend.read(text.encode()), CATALOGUE, past)
    return {n: np.frombuffer(t.data, KINDS[t.dtype]).tolist() for n, t in prepared.tensors.items()}


def event(item: str, timestamp: int | None = None, rating: float = 0.0) -> dict[str, Any]:
    return {"item": item, "timestamp": timestamp, "rating": rating}


items = st.sampled_from(ITEMS[1:])
ratings = st.sampled_from([0.0, 1.5, 4.0])
timed = st.lists(st.builds(event, items, st.integers(1, 900), ratings), max_size=8)
untimed = st.lists(st.builds(event, items, st.none(), ratings), max_size=8)
names = st.dictionaries(st.sampled_from(["age", "vip"]), st.sampled_from([1.0, 2.0]))


def dated(history: list[dict], timestamp: int) -> list[dict]:
    """The same, with a timestamp where there was none."""
    return [e | {"timestamp": timestamp} if e["timestamp"] is None else e for e in history]


@given(stored=timed | untimed, own=timed | untimed, known=names, user=names)
def test_stored_events_are_as_if_the_request_had_brought_them_first(stored, own, known, user):
    """Those without a time are as old as the oldest of the request's, or of now; the request's features win."""
    oldest = min((e["timestamp"] for e in own if e["timestamp"] is not None), default=NOW)
    whole = dated(stored, oldest) + dated(own, NOW)
    assert row(own, stored, user, known) == row(whole, None, known | user)


def test_what_the_model_does_not_know_is_left_out():
    """Of a stored history, with its time and rating, and counted; of stored features, which others may use."""
    stored = [event("a", 5, 1.0), event("gone", 6, 2.0), event("3", 7, 3.0), event("", 8, 4.0)]
    past, dropped = past_of(decode(encode(stored, {"age": 3.0, "height": 1.8})), CATALOGUE)
    assert past == ([1, 3], [5, 7], [1.0, 3.0], {"age": 3.0})
    assert dropped == 2
    assert past_of(decode(encode([3, "4"])), CATALOGUE)[0].positions == [3]


def test_only_the_newest_events_count_and_everything_counts_as_seen():
    got = row(["c"], ["a"] * 9 + ["b"])
    assert got["values"] == [1, 1, 1, 1, 2, 4]
    assert got["seen"] == [1] * 9 + [2, 4]
    assert row(["c"], ["a"], exclude_seen=False)["seen"] == []


def test_a_users_events_may_be_all_that_is_stored():
    """The request may carry no history at all."""
    past, _ = past_of(decode(encode(["a", "b"])), CATALOGUE)
    prepared, k = recommend.prepare(recommend.read(b'{"user_id": 7}'), CATALOGUE, past)
    assert np.frombuffer(prepared.tensors["values"].data, np.int64).tolist() == [1, 2]
    assert k == 4


@pytest.mark.parametrize("body", [b"{}", b'{"k": 1}'])
def test_neither_a_history_nor_a_user_is_a_request(body):
    with pytest.raises(Exception, match="needs `history`, `user_id` or both"):
        recommend.read(body)
