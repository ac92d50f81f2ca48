"""What the front process knows of items' attributes, by itself."""

import itertools

import msgspec
import numpy as np
import pytest

from tests.serve.conftest import NUM_ITEMS, POPULAR
from tests.serve.shop import ATTRIBUTES, FILTERS, held
from tradewind.serve.catalogue import Catalogue, join
from tradewind.serve.errors import RequestError
from tradewind.serve.filtering import ItemFilters, described, filters_of
from tradewind.serve.popular import Popular

KNOWN = described(ATTRIBUTES.take(np.array(POPULAR)))
ITEMS = ["", *(f"i{n}" for n in range(1, NUM_ITEMS + 1))]


def test_a_filter_picks_from_the_popular_items_what_it_holds():
    """As sent by the worker in JSON, for every kind."""
    sent = msgspec.json.decode(msgspec.json.encode(KNOWN), type=dict[str, type(KNOWN["brand"])])
    filters = ItemFilters(sent, POPULAR)
    for wanted in FILTERS[1:]:
        raw = msgspec.json.encode(wanted)
        assert filters.check(raw) == raw
        assert filters.popular(raw) == tuple(p for p in POPULAR if p in held(wanted))
    assert filters.popular(b"") == tuple(POPULAR)


def test_kinds_are_known_where_there_is_no_popular_item():
    """A filter can be checked all the same."""
    filters = ItemFilters(described(ATTRIBUTES.take(np.array([], np.int64))), [])
    for wanted in FILTERS[1:]:
        assert filters.popular(msgspec.json.encode(wanted)) == ()
    with pytest.raises(RequestError, match="'genres' is a tags; 'flag' does not apply"):
        filters.check(b'{"op": "flag", "field": "genres"}')


def test_users_of_one_batch_get_each_what_their_filter_holds_of_the_popular():
    """Beside one without; nobody gets an empty list for a filter that the list does not meet."""
    filters = ItemFilters(KNOWN, POPULAR)
    catalogue = Catalogue(ITEMS, {"popular": POPULAR}, 8, filters=filters)
    texts = [msgspec.json.encode(wanted) if wanted else b"" for wanted in FILTERS]
    popular = Popular(POPULAR, filters)
    for first, second in itertools.pairwise([b"", *texts]):
        users = [catalogue.user([3], k=3, wanted=wanted) for wanted in (first, second)]
        expected = [[p for p in filters.popular(wanted) if p != 3] for wanted in (first, second)]
        answer = popular.answer(join(users))
        assert (answer is None) == ([] in expected)
        if answer is not None:
            items = np.frombuffer(answer["items"].data, np.int64).reshape(2, 3).tolist()
            assert [[i for i in row if i] for row in items] == expected
    assert popular.answer(catalogue.user([*POPULAR], k=1)) is not None


def test_filters_of_a_batch_are_cut_as_they_were_joined():
    """None for who has none; nothing to do where nobody has one."""
    texts = [msgspec.json.encode(wanted) if wanted else b"" for wanted in FILTERS]
    assert filters_of(b"".join(texts), [len(text) for text in texts]) == FILTERS
    assert filters_of(b"", [0, 0]) is None


def test_a_package_without_attributes_sends_no_filters():
    """A batch is as small as it was."""
    assert "filter" not in Catalogue(ITEMS, {}, 8).user([1], k=1).tensors
