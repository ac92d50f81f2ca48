"""The recommender as a model of the v2 protocol: padded rows in, items and scores out."""

import numpy as np
import pytest

from tradewind.serve.catalogue import Catalogue
from tradewind.serve.errors import RequestError
from tradewind.serve.jobs import Tensor
from tradewind.serve.protocols.values import Value
from tradewind.serve.recommender import NO_SCORE, RecommendModel

ITEMS = ["", "a", "b", "c"]


def model() -> RecommendModel:
    return RecommendModel("r", Catalogue(ITEMS, {}, 3, clock=lambda: 9.0), 2)


def strings(*rows: list[str]) -> Value:
    return Value("BYTES", (len(rows), len(rows[0])), [i.encode() for row in rows for i in row])


def numbers(dtype: str, kind: type, *rows: list[float]) -> Value:
    array = np.array(rows, kind)
    return Value(dtype, array.shape, array.tobytes())


def read(prepared, name: str, kind: type = np.int64) -> list:
    return np.frombuffer(prepared.tensors[name].data, kind).tolist()


def test_padding_is_cut_away_wherever_it_stands():
    """Ids and positions say the same; times and ratings keep to their items."""
    rows = (["", "b", "a"], ["c", "", ""])
    by_id = {"history": strings(*rows)}
    by_position = {"positions": numbers("INT64", np.int64, [0, 2, 1], [3, 0, 0])}
    more = {
        "timestamps": numbers("INT64", np.int64, [1, 2, 3], [4, 5, 6]),
        "ratings": numbers("FP32", np.float32, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
    }
    for inputs in (by_id | more, by_position | more):
        prepared = model().prepare(inputs, {"k": 2})
        assert read(prepared, "values") == [2, 1, 3]
        assert read(prepared, "lengths") == [2, 1]
        assert read(prepared, "timestamps") == [2, 3, 4]
        assert read(prepared, "ratings", np.float32) == pytest.approx([0.2, 0.3, 0.4])
        assert read(prepared, "k") == [2, 2]


@pytest.mark.parametrize(
    ("inputs", "parameters", "why"),
    [
        ({}, {}, "exactly one of"),
        ({"history": strings(["a"]), "positions": numbers("INT64", np.int64, [1])}, {}, "exactly one of"),
        ({"history": strings(["a"]), "x": strings(["a"])}, {}, "unexpected input 'x'"),
        (
            {"history": strings(["a"]), "ratings": numbers("FP32", np.float32, [1, 2])},
            {},
            r"must be \[1, 1\]",
        ),
        ({"history": strings(["d"])}, {}, "unknown item 'd'"),
        ({"history": Value("BYTES", (1, 1), [b"\xff"])}, {}, "unknown item"),
        ({"positions": numbers("INT64", np.int64, [4])}, {}, "1 to 3"),
        ({"history": strings(["a"], ["a"], ["a"])}, {}, "takes 1 to 2"),
        ({"history": strings(["a"])}, {"k": 4}, "1 to 3"),
        ({"history": strings(["a"])}, {"k": "2"}, "integer"),
        ({"history": strings(["a"])}, {"exclude_seen": 1}, "exclude_seen must be true or false"),
    ],
    ids=range(11),
)
def test_what_cannot_be_meant_is_refused(inputs, parameters, why):
    """Each is a 400 that says what would be right."""
    with pytest.raises(RequestError, match=why) as caught:
        model().prepare(inputs, parameters)
    assert caught.value.status == 400


def test_the_answer_has_external_ids_and_scores_that_json_can_hold():
    """As many as this request asked for; an empty place has no name and the lowest score."""
    tensors = {
        "items": Tensor("INT64", (2, 3), np.array([[2, 1, 3], [3, 0, 0]]).tobytes()),
        "scores": Tensor("FP32", (2, 3), np.array([[3, 2, 1], [1, -np.inf, -np.inf]], np.float32).tobytes()),
    }
    answer = model().finish(tensors, {"k": 2})
    assert answer["items"] == Value("BYTES", (2, 2), [b"b", b"a", b"c", b""])
    assert answer["scores"].array().tolist() == [[3, 2], [1, NO_SCORE]]
