"""Filters say what they mean, are bounded, and name what is wrong with them."""

import datetime
import json
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.retrieve import Filter, FilterError, build, check_filter, decode_filter
from tradewind.retrieve.attributes import Attributes, join
from tradewind.retrieve.filters import And, Equal, Flag, In, Not, Or, Range, Tags
from tradewind.retrieve.naive import holds, rows_of

with warnings.catch_warnings():
    # SWIG's own types warn when first imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import faiss  # noqa: F401

BRANDS, GENRES = ["acme", "blue", "crow"], ["jazz", "rock", "folk"]


@st.composite
def items(draw: st.DrawFn, least: int = 1) -> dict[str, Any]:
    """Columns of every kind, with values missing."""
    count = draw(st.integers(least, 20))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    return {
        "brand": [*column(st.sampled_from([*BRANDS, None]))],
        "price": np.array(column(st.sampled_from([0.0, 1.5, 2.0, 3.0, np.nan]))),
        "year": np.array(column(st.integers(1990, 1995))),
        "stock": np.array(column(st.booleans())),
        "genres": column(st.lists(st.sampled_from(GENRES), max_size=3)),
    }


def leaves() -> st.SearchStrategy[Filter]:
    brand, genres = (
        st.sampled_from([*BRANDS, "other"]),
        st.lists(st.sampled_from([*GENRES, "none"]), max_size=2),
    )
    bounds = st.tuples(st.sampled_from([0.0, 1.5, 1.7]), st.sampled_from([1.7, 2.0, 9.0]))
    return st.one_of(
        st.builds(Equal, field=st.just("brand"), value=brand),
        st.builds(Equal, field=st.just("year"), value=st.integers(1989, 1996)),
        st.builds(In, field=st.just("brand"), values=st.lists(brand, max_size=3).map(tuple)),
        st.builds(In, field=st.just("year"), values=st.lists(st.integers(1989, 1996), max_size=3).map(tuple)),
        bounds.map(lambda pair: Range(field="price", min=pair[0], max=pair[1])),
        st.builds(Range, field=st.just("year"), min=st.integers(1989, 1996).map(float)),
        st.builds(Range, field=st.just("price"), max=st.sampled_from([0.0, 1.6])),
        st.builds(Flag, field=st.just("stock"), value=st.booleans()),
        st.tuples(genres, genres)
        .filter(lambda pair: bool(pair[0] or pair[1]))
        .map(lambda pair: Tags(field="genres", any=tuple(pair[0]), all=tuple(pair[1]))),
    )


def filters() -> st.SearchStrategy[Filter]:
    def deeper(inside: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
        parts = st.lists(inside, min_size=1, max_size=3).map(tuple)
        return st.one_of(
            st.builds(And, filters=parts), st.builds(Or, filters=parts), st.builds(Not, filter=inside)
        )

    return st.recursive(leaves(), deeper, max_leaves=6)


@given(columns=items(), wanted=filters())
@settings(max_examples=100, deadline=None)
def test_a_mask_holds_what_the_definition_holds(columns: dict[str, Any], wanted: Filter) -> None:
    """Whole columns, some of their rows and JSON and back give what evaluating item by item gives."""
    attributes = Attributes(columns)
    expected = [holds(wanted, item) for item in rows_of(attributes)]
    assert attributes.mask(wanted).tolist() == expected
    rows = np.arange(len(attributes))[::-2]
    assert attributes.mask(wanted, rows).tolist() == expected[::-2]
    assert attributes.take(rows).mask(wanted).tolist() == expected[::-2]
    assert decode_filter(encode(wanted)) == wanted


@given(first=items(), second=items(), wanted=filters())
@settings(max_examples=40, deadline=None)
def test_joined_attributes_are_those_of_the_parts(
    first: dict[str, Any], second: dict[str, Any], wanted: Filter
) -> None:
    """Columns with other names in them are joined by name, not by code."""
    parts = [Attributes(first), Attributes(second)]
    if parts[0].kinds == parts[1].kinds:
        expected = [*parts[0].mask(wanted).tolist(), *parts[1].mask(wanted).tolist()]
        assert join(parts).mask(wanted).tolist() == expected


@pytest.mark.parametrize("kind", ["auto", "exact", "faiss", "faiss-ivf", "faiss-hnsw"])
@given(
    columns=items(least=2),
    wanted=st.lists(st.none() | filters(), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_filtered_searches_agree_with_the_oracle(
    kind: str, columns: dict[str, Any], wanted: list[Filter | None], seed: int
) -> None:
    """Each query of a batch is filtered by its own filter, with exclusions; small tables, where all are exact."""
    attributes = Attributes(columns)
    generator = np.random.default_rng(seed)
    table = generator.integers(-3, 4, size=(len(attributes), 4)).astype("f4")
    queries = generator.integers(-3, 4, size=(len(wanted), 4)).astype("f4")
    exclude = [generator.integers(0, len(attributes), size=n % 3).tolist() for n in range(len(wanted))]
    naive = build("naive", table, skip=1, attributes=attributes)
    expected = naive.search(queries, 5, exclude, wanted)
    hits = build(kind, table, skip=1, attributes=attributes).search(queries, 5, exclude, wanted)
    np.testing.assert_array_equal(hits.scores, expected.scores)
    for b, positions in enumerate(hits.positions):
        found = positions[positions >= 0]
        np.testing.assert_array_equal(table[found] @ queries[b], hits.scores[b, : len(found)])
        if wanted[b] is not None:
            assert attributes.mask(wanted[b], found).all()


def encode(wanted: Filter) -> bytes:
    import msgspec

    return msgspec.json.encode(wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"op": "eq", "field": "brand"}', r"missing required field `value`"),
        ('{"op": "near", "field": "brand"}', r"Invalid value 'near' - at `filter.op`"),
        ('{"op": "and", "filters": [{"op": "flag", "field": 3}]}', r"filter.filters\[0\].field"),
        ('{"op": "flag", "field": "a", "evil": 1}', r"unknown field `evil`"),
        ('{"op": "range", "field": "price"}', r"filter: range of 'price' needs `min` or `max`"),
        ('{"op": "range", "field": "price", "min": 2, "max": 1}', "min 2.0 above max 1.0"),
        ('{"op": "and", "filters": [{"op": "or", "filters": []}]}', r"filter.filters\[0\]: an empty list"),
        ('{"op": "tags", "field": "genres"}', "needs `any` or `all`"),
        ("[1", "filter: "),
        ('{"op": "eq", "field": "a", "value": "\ud800"}', "filter: "),
        (b'{"op": "eq", "field": "a", "value": "\xff"}', "filter: "),
        ('{"op": "eq", "field": "a", "value": 1e999}', "filter: Number out of range - at `filter.value`"),
        ('{"op":"not","filter":' * 17 + '{"op":"flag","field":"a"}' + "}" * 17, "more than 16 deep"),
        ('{"op":"not","filter":' * 2600 + "1", "filter: "),
        (
            json.dumps({"op": "or", "filters": [{"op": "flag", "field": "a"}] * 300}),
            "more than 256 conditions",
        ),
        (json.dumps({"op": "in", "field": "a", "values": [1] * 4097}), "more than 4096 values"),
        (" " * 70_000, "70000 bytes"),
    ],
)
def test_a_filter_that_is_malformed_or_too_large_says_so(text: str | bytes, message: str) -> None:
    """JSON that is no filter, or past the bounds, is a FilterError that names the place; nothing else is raised."""
    with pytest.raises(FilterError, match=message):
        decode_filter(text)


def test_a_deep_filter_built_in_python_is_refused_too() -> None:
    """The bounds hold however the filter came to be."""
    wanted: Filter = Flag(field="a")
    for _ in range(50):
        wanted = Not(filter=wanted)
    with pytest.raises(FilterError, match="16 deep"):
        check_filter(wanted)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Equal(field="brnad", value="acme"), "no attribute 'brnad'; did you mean 'brand'"),
        (Equal(field="zzz", value="acme"), "there are brand, price, stock, tags"),
        (Equal(field="brand", value=3), "'brand' is a category of text, not 3"),
        (Equal(field="price", value="3"), "'price' is a number, not '3'"),
        (Flag(field="brand"), "'brand' is a category; 'flag' does not apply, use eq or in"),
        (Range(field="stock", min=1), "'stock' is a flag; 'range' does not apply, use flag"),
        (Tags(field="price", any=("a",)), "'price' is a number; 'tags' does not apply"),
        (Equal(field="tags", value="a"), "'tags' is a tags; 'eq' does not apply, use tags"),
    ],
)
def test_a_filter_that_does_not_fit_the_items_names_the_field(wanted: Filter, message: str) -> None:
    """An unknown field is met with the nearest name, an unfit condition with the ones that fit."""
    attributes = Attributes({"brand": ["acme"], "price": [1.0], "stock": [True], "tags": [["a"]]})
    with pytest.raises(FilterError, match=message):
        attributes.mask(wanted)


def test_a_filter_on_an_index_without_attributes_is_refused() -> None:
    """It says how the index gets attributes."""
    for kind in ("auto", "exact", "faiss", "naive"):
        with pytest.raises(FilterError, match="no attributes; build it with"):
            build(kind, np.ones((3, 2), "f4")).search(np.ones((1, 2), "f4"), 1, filters=[Flag(field="a")])


def test_times_are_text_or_seconds() -> None:
    """RFC 3339 text, with or without a zone, and seconds are the same bound, over datetime columns."""
    attributes = Attributes({"at": np.array(["2026-01-01", "2026-06-01", "NaT"], dtype="datetime64[s]")})
    seconds = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp()
    for low in ('"2026-03-01T00:00:00"', '"2026-03-01T01:00:00+01:00"', str(seconds)):
        wanted = decode_filter(f'{{"op": "range", "field": "at", "min": {low}}}')
        assert attributes.mask(wanted).tolist() == [False, True, False]


def test_attributes_come_from_arrow_and_tensors() -> None:
    """Each Arrow type becomes its kind of column, nulls as no value; tensors are taken as arrays."""
    table = pa.table(
        {
            "brand": pa.array(["a", None, "b"]).dictionary_encode(),
            "name": ["x", "y", None],
            "price": [1.0, None, 3.0],
            "year": [1, 2, 3],
            "at": pa.array([0, 1, None], pa.timestamp("s")),
            "stock": [True, False, True],
            "genres": [["j"], [], None],
        }
    )
    attributes = Attributes.from_arrow(table)
    assert attributes.kinds == {
        "brand": "category", "name": "category", "price": "number", "year": "number", "at": "number",
        "stock": "flag", "genres": "tags",
    }  # fmt: skip
    assert attributes.mask(Equal(field="brand", value="b")).tolist() == [False, False, True]
    assert attributes.mask(Range(field="price", min=0)).tolist() == [True, False, True]
    assert attributes.mask(Range(field="at", min=0)).tolist() == [True, True, False]
    assert attributes.mask(Tags(field="genres", any=("j",))).tolist() == [True, False, False]
    assert Attributes({"x": torch.tensor([1.0, 2.0])}).kinds == {"x": "number"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1], "b": [1, 2]}, "differ in length"),
        ({"a": [1, "x"]}, "'a' mixes kinds"),
        ({"a": [True, None]}, "'a': a flag is true or false"),
        ({"a": [[1]]}, "'a': tags are texts"),
        ({"a": np.ones((2, 2))}, r"'a' has shape \[2, 2\]"),
    ],
)
def test_columns_that_are_of_no_kind_are_refused(columns: dict[str, Any], message: str) -> None:
    """The error names the column."""
    with pytest.raises(FilterError, match=message):
        Attributes(columns)


def test_numbers_past_64_bits_are_in_no_column() -> None:
    """A value that no column could hold is no item's, and nothing is raised."""
    attributes = Attributes({"n": np.arange(3)})
    assert not attributes.mask(decode_filter(f'{{"op": "eq", "field": "n", "value": {10**30}}}')).any()
