"""Retrieval with FAISS: flat (exact) and inverted lists (approximate)."""

from typing import Any

import numpy as np

from tradewind.errors import MissingExtraError
from tradewind.retrieve.base import EMPTY, Exclude, Hits, check_query, check_table, flat_exclude

_MIN_POINTS_PER_LIST = 39
"""Fewer training points per list than this and k-means warns, rightly."""


class FaissIndex:
    """`faiss.IndexFlatIP` behind the common interface."""

    def __init__(self, embedding: np.ndarray, *, skip: int = 0) -> None:
        table = check_table(embedding, skip)
        self.num_items, self.dimension = table.shape
        self._skip = skip
        self._index = self._make(table[skip:])
        self._index.add(table[skip:])

    def search(self, queries: np.ndarray, k: int, exclude: Exclude = None) -> Hits:
        """FAISS has no filter per query, so k plus the longest exclusion is fetched, and the excluded dropped."""
        queries = check_query(self, queries, k)
        rows, excluded = flat_exclude(self, exclude, len(queries))
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        positions = np.full((len(queries), k), EMPTY, dtype=np.int64)
        if not len(queries):
            return Hits(scores, positions)
        longest = int(np.bincount(rows).max()) if len(rows) else 0
        fetched = min(k + longest, self.num_items - self._skip)
        found_scores, found = self._index.search(queries, fetched)
        found = np.where(found >= 0, found + self._skip, EMPTY)
        keep = found != EMPTY
        if longest:
            pairs = rows * self.num_items + excluded
            keep &= ~np.isin(found + np.arange(len(queries))[:, None] * self.num_items, pairs)
        order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(keep, order, axis=1)
        width = order.shape[1]
        scores[:, :width][kept] = np.take_along_axis(found_scores, order, axis=1)[kept]
        positions[:, :width][kept] = np.take_along_axis(found, order, axis=1)[kept]
        return Hits(scores, positions)

    def _make(self, table: np.ndarray) -> Any:
        return _faiss().IndexFlatIP(table.shape[1])


class FaissIVFIndex(FaissIndex):
    """`faiss.IndexIVFFlat`: looks into `num_probes` of `num_lists` clusters; approximate.

    `num_lists` is 4 * sqrt(N) by default, and never leaves a cluster with too few points to train on.
    """

    def __init__(
        self, embedding: np.ndarray, *, skip: int = 0, num_lists: int | None = None, num_probes: int = 16
    ) -> None:
        self._num_lists, self._num_probes = num_lists, num_probes
        super().__init__(embedding, skip=skip)

    def _make(self, table: np.ndarray) -> Any:
        faiss = _faiss()
        count, dimension = table.shape
        lists = self._num_lists or int(4 * count**0.5)
        lists = max(1, min(lists, count // _MIN_POINTS_PER_LIST))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(self._num_probes, lists)
        index.train(table)
        return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("this index needs FAISS: pip install 'tradewind[serve]'") from error
    return faiss
