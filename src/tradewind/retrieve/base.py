"""The interface of an index, and what every implementation shares."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np

    Exclude = Sequence[Sequence[int] | np.ndarray] | None
else:
    Exclude = object

EMPTY = -1
"""Position that fills a row with fewer than k items; its score is -inf."""


class Hits(NamedTuple):
    """Per query, best first: scores float32[B, k] and positions int64[B, k]. Ties come in any order."""

    scores: "np.ndarray"
    positions: "np.ndarray"


class Index(Protocol):
    """Finds, for each query, the items with the largest inner product."""

    num_items: int
    """Rows of the table, counting the leading ones that are never returned."""
    dimension: int

    def search(self, queries: "np.ndarray", k: int, exclude: Exclude = None) -> Hits:
        """The k best items of each query float32[B, D], without the positions in `exclude[b]`.

        Rows with fewer than k items end in EMPTY. Raises ValueError for a wrong shape, k < 1, or an excluded
        position that is not in the table.
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

    lists = [()] * num_queries if exclude is None else exclude
    if len(lists) != num_queries:
        raise ValueError(f"{len(lists)} lists of excluded positions for {num_queries} queries")
    rows = np.repeat(np.arange(num_queries), [len(e) for e in lists])
    positions = np.concatenate([np.asarray(e, dtype=np.int64) for e in lists]) if len(rows) else rows
    if len(positions) and not 0 <= positions.min() <= positions.max() < index.num_items:
        raise ValueError(f"an excluded position is outside 0 to {index.num_items - 1}")
    return rows, positions
