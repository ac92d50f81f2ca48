"""Attributes in a package's form come back as they were."""

import datetime

import numpy as np
import pytest
import torch

from tradewind.retrieve import FilterError
from tradewind.retrieve.attributes import Attributes, of_kind
from tradewind.retrieve.stored import restored, stored

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
COLUMNS = {
    "brand": ["acme", None, "blue"],
    "price": [1.5, None, 2.0],
    "year": [1990, 2**60, -1],
    "added": [NOON, None, NOON],
    "in_stock": [True, False, True],
    "genres": [["jazz"], [], ["rock", "jazz"]],
}


def test_every_kind_comes_back():
    """With what is missing, and with integers that no float could hold; other vocabularies are left alone."""
    kept = stored(Attributes(COLUMNS))
    back = restored(kept.tensors, {**kept.vocabularies, "item": ["", "a", "b"]}, 3)
    assert back.kinds == Attributes(COLUMNS).kinds
    for name, column in Attributes(COLUMNS).columns.items():
        assert back.columns[name].plain() == column.plain()


def test_narrow_numbers_are_read_too():
    """A package may hold any numeric type."""
    narrow = {
        "a": torch.tensor([1, 2], dtype=torch.int8),
        "b": torch.tensor([0.5, 1.0], dtype=torch.bfloat16),
    }
    back = restored(narrow, {}, 2)
    assert {name: column.plain() for name, column in back.columns.items()} == {"a": [1, 2], "b": [0.5, 1.0]}


def test_a_field_needs_a_name_that_a_file_can_have():
    with pytest.raises(FilterError, match="attribute 'my field': name it with letters"):
        stored(Attributes({"my field": [1]}))


@pytest.mark.parametrize(
    ("tensors", "vocabularies", "why"),
    [
        ({}, {"attribute-brand": ["a"]}, "'brand' has no tensor"),
        ({"x": torch.ones(2)}, {}, "2 rows for 3 items"),
        ({"x": torch.zeros(3).long()}, {"attribute-x": ["a", "a"]}, "'x': its vocabulary holds a text twice"),
        ({"x": torch.full((3,), -2)}, {"attribute-x": ["a"]}, "'x': a code is outside -1 to 0"),
        ({"x": torch.zeros(3).long(), "x.offsets": torch.arange(4)}, {}, "'x' has offsets and no vocabulary"),
        (
            {"x": torch.zeros(3).long(), "x.offsets": torch.tensor([0, 2, 1, 3])},
            {"attribute-x": ["a"]},
            "'x': its offsets do not go from 0 up to 3",
        ),
        ({"x": torch.zeros(3, dtype=torch.complex64)}, {}, "'x' is torch.complex64"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tensors, vocabularies, why):
    with pytest.raises(FilterError, match=why):
        restored(tensors, vocabularies, 3)


@pytest.mark.parametrize("kind", ["category", "number", "flag", "tags"])
def test_a_kind_is_kept_where_no_item_shows_it(kind):
    """Of no items at all, and of items without a value."""
    assert (of_kind("x", kind, []).kind, len(of_kind("x", kind, []))) == (kind, 0)
    if kind != "flag":
        nothing = of_kind("x", kind, [[], []] if kind == "tags" else [None, None])
        assert (nothing.kind, len(nothing)) == (kind, 2)
        assert np.all([not value for value in nothing.plain()])
