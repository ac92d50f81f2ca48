"""The interface of an index, and what every implementation shares."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np

    from tradewind.retrieve.filters import Filter

    Exclude = Sequence[Sequence[int] | np.ndarray] | None
    Filters = Sequence[Filter | None] | None
    Learnt = Mapping[str, np.ndarray]
else:
    Exclude = Filters = Learnt = object

EMPTY = -1
"""Position that fills a row with fewer than k items; its score is -inf."""


class Hits(NamedTuple):
    """Per query, best first: scores float32[B, k] and positions int64[B, k]. Ties come in any order."""

    scores: "np.ndarray"
    positions: "np.ndarray"

    def put(self, rows: "np.ndarray", found: "Hits") -> None:
        """Write what was found for some of the queries, which may be fewer than k items each."""
        width = found.scores.shape[1]
        self.scores[rows, :width], self.positions[rows, :width] = found.scores, found.positions


class Index(Protocol):
    """Finds, for each query, the items with the largest inner product."""

    dimension: int

    @property
    def num_items(self) -> int:
        """Rows of the table, counting the leading ones that are never returned."""
        ...

    @property
    def learnt(self) -> Learnt:
        """What took long to find out about the table, by name; the same index is built of that, given as `learnt=`."""
        ...

    def search(self, queries: "np.ndarray", k: int, exclude: Exclude = None, filters: Filters = None) -> Hits:
        """The k best items of each query float32[B, D] in `filters[b]`, without the positions in `exclude[b]`.

        Queries with equal filters share the work of it. Rows with fewer than k items end in EMPTY. Raises ValueError
        for a wrong shape, k < 1, or an excluded position that is not in the table; FilterError, a ValueError, for a
        filter that does not fit the items' attributes.
        """
        ...


def check_table(embedding: "np.ndarray", skip: int) -> "np.ndarray":
    """The table as contiguous float32[N, D], or ValueError."""
    import numpy as np

    table = np.ascontiguousarray(embedding, dtype=np.float32)
    if table.ndim != 2 or not 0 <= skip < len(table):
        raise ValueError(f"an index needs float32[N, D] with N > {skip}, not {list(table.shape)}")
    if not np.isfinite(table).all():
        raise ValueError("the item embeddings hold NaN or infinities")
    return table


def check_query(index: Index, queries: "np.ndarray", k: int) -> "np.ndarray":
    """The queries as contiguous float32[B, D], or ValueError."""
    import numpy as np

    if queries.ndim != 2 or queries.shape[1] != index.dimension:
        raise ValueError(f"queries have shape {list(queries.shape)}, not [B, {index.dimension}]")
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least one item")
    return np.ascontiguousarray(queries, dtype=np.float32)


def flat_exclude(index: Index, exclude: Exclude, num_queries: int) -> "tuple[np.ndarray, np.ndarray]":
    """Excluded (row, position) pairs as two int64 arrays, or ValueError."""
    import numpy as np

    if exclude is None:
        none = np.zeros(0, dtype=np.int64)
        return none, none
    if len(exclude) != num_queries:
        raise ValueError(f"{len(exclude)} lists of excluded positions for {num_queries} queries")
    rows = np.repeat(np.arange(num_queries), [len(e) for e in exclude])
    positions = np.concatenate([np.asarray(e, dtype=np.int64) for e in exclude]) if len(rows) else rows
    if len(positions) and not 0 <= positions.min() <= positions.max() < index.num_items:
        raise ValueError(f"an excluded position is outside 0 to {index.num_items - 1}")
    return rows, positions


def by_filter(filters: Filters, num_queries: int) -> "Iterator[tuple[Filter | None, np.ndarray]]":
    """Each filter with the rows int64 of the queries that carry it; ValueError where there is not one a query."""
    import numpy as np

    if filters is None:
        if num_queries:
            yield None, np.arange(num_queries)
        return
    if len(filters) != num_queries:
        raise ValueError(f"{len(filters)} filters for {num_queries} queries")
    if num_queries == 1:
        yield filters[0], np.zeros(1, dtype=np.int64)
        return
    groups: dict[Filter | None, list[int]] = {}
    for row, wanted in enumerate(filters):
        groups.setdefault(wanted, []).append(row)
    for wanted, rows in groups.items():
        yield wanted, np.array(rows)


def fill(num_queries: int, k: int) -> Hits:
    """Hits without an item."""
    import numpy as np

    scores = np.full((num_queries, k), -np.inf, dtype=np.float32)
    return Hits(scores, np.full((num_queries, k), EMPTY, dtype=np.int64))


def without_excluded(
    found: Hits, k: int, group: "np.ndarray", rows: "np.ndarray", excluded: "np.ndarray", num_items: int
) -> Hits:
    """The k best of what was found for the queries `group`, without the (row, position) pairs that are excluded."""
    import numpy as np

    scores, positions = found
    if not len(rows) or not (mine := np.isin(rows, group)).any():
        return Hits(scores[:, :k], positions[:, :k])
    pairs = rows[mine] * num_items + excluded[mine]
    keep = (positions != EMPTY) & ~np.isin(positions + group[:, None] * num_items, pairs)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep, order, axis=1)
    scores = np.where(kept, np.take_along_axis(scores, order, axis=1), np.float32(-np.inf))
    return Hits(scores, np.where(kept, np.take_along_axis(positions, order, axis=1), EMPTY))
