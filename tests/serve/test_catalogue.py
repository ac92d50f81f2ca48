"""One user's request as tensors: what is kept, cut, left out and refused."""

import numpy as np
import pytest

from tradewind.errors import TradewindError
from tradewind.serve.catalogue import Catalogue, join, settings_of
from tradewind.serve.errors import RequestError
from tradewind.serve.jobs import Prepared

ITEMS = ["", *(f"i{n}" for n in range(1, 11))]
KINDS = {"INT64": np.int64, "FP32": np.float32}


def catalogue(**config) -> Catalogue:
    return Catalogue(ITEMS, {"max_history": 3, "user_features": ["age"], **config}, 5, clock=lambda: 1000.7)


def values(prepared: Prepared) -> dict[str, list]:
    return {n: np.frombuffer(t.data, KINDS[t.dtype]).tolist() for n, t in prepared.tensors.items()}


def test_a_history_keeps_its_newest_events_and_leaves_all_of_it_out():
    """What is cut from the model's input is still not recommended again."""
    got = values(catalogue().user([1, 2, 3, 4, 5], [10, 20, 30, 40, 50], [1, 2, 3, 4, 5], k=4))
    assert got["values"] == [3, 4, 5]
    assert got["timestamps"] == [30, 40, 50]
    assert got["ratings"] == [3, 4, 5]
    assert got["seen"] == [1, 2, 3, 4, 5]
    assert (got["lengths"], got["num_seen"], got["k"], got["now"]) == ([3], [5], [4], [1000])


def test_a_user_without_a_history_is_the_padding_item():
    """There is one token, number 0, at the time of the request."""
    got = values(catalogue().user([], now=77, k=1))
    assert (got["values"], got["timestamps"], got["lengths"], got["seen"]) == ([0], [77], [1], [])


def test_seen_items_may_be_asked_for():
    """`exclude_seen=False` leaves nothing out."""
    assert values(catalogue().user([1, 2], exclude_seen=False, k=1))["seen"] == []


def test_user_features_come_in_the_models_order_with_zero_for_the_rest():
    """Missing features are 0, unknown ones are refused with the known ones named."""
    model = catalogue(user_features=["age", "vip"])
    assert values(model.user([1], features={"vip": 2.0}, k=1))["user"] == [0.0, 2.0]
    with pytest.raises(RequestError, match="unknown user feature 'x'; this model has age, vip"):
        model.user([1], features={"x": 1.0}, k=1)


@pytest.mark.parametrize("item", ["", "i0", "i11", 0, 11, "I1"])
def test_unknown_items_are_refused_by_name(item):
    """The padding item is no item."""
    with pytest.raises(RequestError, match="unknown item") as caught:
        catalogue().position(item)
    assert caught.value.status == 400
    assert repr(str(item)) in str(caught.value)


@pytest.mark.parametrize("k", [0, 6, -1, True, 2.0, "2", None])
def test_k_is_a_count_within_the_candidates(k):
    """Anything else is refused."""
    with pytest.raises(RequestError, match="1 to 5"):
        catalogue().check_k(k)


def test_without_k_there_are_ten_or_as_many_as_can_be_had():
    """A small catalogue's default is one that it can keep."""
    assert Catalogue(ITEMS, {}, 100).default_k == 10
    assert catalogue().default_k == 5


@pytest.mark.parametrize("position", [0, 11, -1])
def test_positions_outside_the_catalogue_are_refused(position):
    """They are 1 to the number of items."""
    with pytest.raises(RequestError, match="1 to 10"):
        catalogue().check_position(position)


def test_users_are_joined_row_by_row():
    """Jagged inputs follow each other, one length a user."""
    joined = join([catalogue().user(history, k=1) for history in ([1, 2], [], [5])])
    got = values(joined)
    assert joined.rows == 3
    assert (got["values"], got["lengths"]) == ([1, 2, 0, 5], [2, 1, 1])
    assert joined.tensors["user"].shape == (3, 1)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"max_history": 0}, "max_history"),
        ({"user_features": "age"}, "user_features"),
        ({"popular": [0]}, "popular item 0 is not one of 1 to 10"),
        ({"popular": [3, 11]}, "popular item 11"),
    ],
)
def test_a_config_that_cannot_be_served_is_named_when_it_is_loaded(config, why):
    """Not at the first request that meets it."""
    with pytest.raises(TradewindError, match=why):
        settings_of(config, 10)
