"""Every index agrees with the oracle that sorts everything."""

import warnings
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.errors import SpecError
from tradewind.retrieve import EMPTY, Hits, build
from tradewind.retrieve.naive import NaiveIndex

with warnings.catch_warnings():
    # SWIG's own types warn when first imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import faiss  # noqa: F401

EXACT = ["auto", "exact", "faiss"]
ALL = [*EXACT, "faiss-hnsw", "faiss-ivf", "naive"]


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Small tables of whole numbers, so that scores are exact and ties are many."""
    count, dimension, batch = draw(st.integers(1, 30)), draw(st.integers(1, 5)), draw(st.integers(0, 4))
    whole = st.integers(-3, 3).map(float)
    positions = st.lists(st.integers(0, count - 1), max_size=40)
    return {
        "table": draw(arrays.arrays(np.float32, (count, dimension), elements=whole)),
        "queries": draw(arrays.arrays(np.float32, (batch, dimension), elements=whole)),
        "skip": draw(st.integers(0, min(1, count - 1))),
        "k": draw(st.integers(1, 40)),
        "exclude": draw(st.none() | st.lists(positions, min_size=batch, max_size=batch)),
    }


@pytest.mark.parametrize("kind", EXACT)
@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_exact_indexes_agree_with_sorting_everything(kind: str, case: dict[str, Any]) -> None:
    """Scores equal the oracle's, and every position has the score beside it, is allowed and is there once."""
    arguments = case["queries"], case["k"], case["exclude"]
    expected = NaiveIndex(case["table"], skip=case["skip"]).search(*arguments)
    hits = build(kind, case["table"], skip=case["skip"]).search(*arguments)
    np.testing.assert_array_equal(hits.scores, expected.scores)
    check_rows(case, hits)


def check_rows(case: dict[str, Any], hits: Hits) -> None:
    assert hits.scores.dtype == np.float32
    assert hits.positions.dtype == np.int64
    for b, (scores, positions) in enumerate(zip(hits.scores, hits.positions, strict=True)):
        found = positions[positions != EMPTY]
        assert np.isneginf(scores[len(found) :]).all()
        assert len(set(found.tolist())) == len(found)
        assert not set(found.tolist()) & {*range(case["skip"]), *(case["exclude"] or [[]] * 9)[b]}
        np.testing.assert_array_equal(scores[: len(found)], case["table"][found] @ case["queries"][b])


def test_the_exact_index_gives_the_same_across_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries that are scored in several blocks get their own exclusions and results."""
    monkeypatch.setattr("tradewind.retrieve.exact._BLOCK", 200)
    generator = np.random.default_rng(0)
    table = generator.normal(size=(100, 8)).astype(np.float32)
    queries = generator.normal(size=(9, 8)).astype(np.float32)
    exclude = [generator.integers(0, 100, size=n).tolist() for n in range(9)]
    expected = NaiveIndex(table, skip=1).search(queries, 10, exclude)
    hits = build("exact", table, skip=1).search(queries, 10, exclude)
    np.testing.assert_array_equal(hits.positions, expected.positions)
    np.testing.assert_allclose(hits.scores, expected.scores, rtol=1e-5)


def test_inverted_lists_find_nearly_all_of_the_best() -> None:
    """Recall@10 on clustered items is at least 0.9, with exclusions respected."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(20, 16))
    table = (centres[generator.integers(0, 20, 4000)] + 0.3 * generator.normal(size=(4000, 16))).astype("f4")
    queries = table[:50] + 0.01
    exclude = [[i] for i in range(50)]
    expected = build("exact", table).search(queries, 10, exclude).positions
    found = build("faiss-ivf", table).search(queries, 10, exclude).positions
    recall = np.mean(
        [len(set(a) & set(b)) / 10 for a, b in zip(expected.tolist(), found.tolist(), strict=True)]
    )
    assert recall >= 0.9
    assert not any(i in row for i, row in enumerate(found.tolist()))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("queries", "k", "exclude", "message"),
    [
        (np.zeros((2, 3), "f4"), 1, None, r"shape \[2, 3\], not \[B, 4\]"),
        (np.zeros(4, "f4"), 1, None, r"shape \[4\]"),
        (np.zeros((2, 4), "f4"), 0, None, "at least one"),
        (np.zeros((2, 4), "f4"), 1, [[1]], "1 lists of excluded positions for 2 queries"),
        (np.zeros((2, 4), "f4"), 1, [[1], [5]], "outside 0 to 4"),
        (np.zeros((2, 4), "f4"), 1, [[-1], []], "outside 0 to 4"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    kind: str, queries: np.ndarray, k: int, exclude: Any, message: str
) -> None:
    """Wrong shapes, k and exclusions are a ValueError that says what is wrong, in every index."""
    with pytest.raises(ValueError, match=message):
        build(kind, np.ones((5, 4), "f4")).search(queries, k, exclude)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "table",
    [np.zeros((1, 4), "f4"), np.zeros(4, "f4"), np.full((3, 4), np.nan, "f4")],
    ids=["one", "flat", "nan"],
)
def test_a_table_that_cannot_be_searched_is_refused(kind: str, table: np.ndarray) -> None:
    """No items after the skipped ones, a wrong rank and NaN are refused when the index is built."""
    with pytest.raises(ValueError, match=r"index needs|NaN"):
        build(kind, table, skip=1)


def test_an_unknown_index_lists_the_choices() -> None:
    """The error names every kind there is."""
    with pytest.raises(SpecError, match="auto, exact, faiss, faiss-hnsw, faiss-ivf, naive"):
        build("hnsw", np.ones((2, 2), "f4"))
