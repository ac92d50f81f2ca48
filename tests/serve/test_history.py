"""Histories taken apart into columns."""

import pytest

from tradewind.serve.catalogue import Event
from tradewind.serve.errors import RequestError
from tradewind.serve.history import Columns, columns


def test_items_alone_have_no_other_columns():
    assert columns(["a", 3]) == Columns(["a", 3], None, None)
    assert columns([]) == Columns([], None, None)


def test_one_event_makes_columns_for_all():
    """Whole seconds; a rating of 0 where there is none."""
    assert columns(["a", Event(3, None, 4.5)]) == Columns(["a", 3], None, [0.0, 4.5])
    assert columns([Event("a", 5.9), Event("b", 7)]) == Columns(["a", "b"], [5, 7], [0.0, 0.0])


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (Event("b"), "give every event a timestamp, or none"),
        (Event("b", -1), "timestamp must be unix seconds"),
        (Event("b", 7, 1e39), "'rating' is out of range"),
    ],
)
def test_what_cannot_be_meant_is_a_400(event, why):
    with pytest.raises(RequestError, match=why):
        columns([Event("a", 5), event])
