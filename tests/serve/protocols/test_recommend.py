"""`/v1/recommend`: what a history may look like, and what comes back."""

import json

import numpy as np
import pytest

from tradewind.serve.catalogue import Catalogue
from tradewind.serve.errors import RequestError
from tradewind.serve.jobs import Tensor
from tradewind.serve.protocols import recommend

CATALOGUE = Catalogue(["", "a", "b", "3"], {"user_features": ["age"]}, 3, clock=lambda: 100.0)


def parsed(**body) -> tuple[dict, int]:
    prepared, k = recommend.prepare(recommend.read(json.dumps(body).encode()), CATALOGUE)
    kinds = {"INT64": np.int64, "FP32": np.float32}
    return {n: np.frombuffer(t.data, kinds[t.dtype]).tolist() for n, t in prepared.tensors.items()}, k


def test_items_may_stand_alone_or_in_events():
    """Ids as text or number; times in seconds, fractions dropped; ratings 0 where there are none."""
    got, k = parsed(
        history=[{"item": "a", "timestamp": 5.9}, {"item": 3, "timestamp": 7, "rating": 4.5}],
        k=2,
        user={"age": 30},
    )
    assert (got["values"], got["timestamps"], got["ratings"], k) == ([1, 3], [5, 7], [0.0, 4.5], 2)
    assert (got["user"], got["now"]) == ([30.0], [100])
    got, k = parsed(history=["b", 3], now=9.5, exclude_seen=False)
    assert (got["values"], got["timestamps"], got["now"], got["seen"], k) == ([2, 3], [9, 9], [9], [], 3)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"history": [{"item": "a", "timestamp": 5}, "b"]}, "give every event a timestamp, or none"),
        ({"history": [{"item": "a", "timestamp": 1e13}]}, "timestamp must be unix seconds"),
        ({"history": ["a"], "now": -1}, "now must be unix seconds"),
        ({"history": ["a"], "user": {"age": 1e39}}, "'age' is out of range"),
        ({"history": ["a"], "k": 4}, "k must be an integer from 1 to 3"),
        ({"history": ["a"], "how_many": 4}, "how_many"),
        ({"history": ["a"] * 3 + ["zzz"]}, "unknown item 'zzz'"),
    ],
)
def test_what_cannot_be_meant_is_refused(body, why):
    """A 400 that names the field."""
    with pytest.raises(RequestError, match=why) as caught:
        parsed(**body)
    assert caught.value.status == 400


def test_the_answer_ends_where_the_items_do():
    """At most k, none of them empty, each with its score."""
    tensors = {
        "items": Tensor("INT64", (1, 3), np.array([2, 1, 0]).tobytes()),
        "scores": Tensor("FP32", (1, 3), np.array([2.0, 1.0, -np.inf], np.float32).tobytes()),
    }
    answer = recommend.render("r@1", 3, tensors, CATALOGUE)
    assert answer == recommend.RecommendResponse("r@1", [recommend.Item("b", 2.0), recommend.Item("a", 1.0)])
    assert len(recommend.render("r@1", 1, tensors, CATALOGUE).items) == 1
