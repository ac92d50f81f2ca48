"""Retrieval with FAISS: flat (exact), inverted lists and graphs (approximate, with knobs); `auto` needs none."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.base import (
    EMPTY,
    Exclude,
    Filters,
    Hits,
    Learnt,
    by_filter,
    check_query,
    check_table,
    fill,
    flat_exclude,
    without_excluded,
)
from tradewind.retrieve.columns import Mask
from tradewind.retrieve.inverted import check_clusters, load_faiss
from tradewind.retrieve.scan import best_of
from tradewind.retrieve.segments import attributes_of

_MIN_POINTS_PER_LIST = 39
"""Fewer training points per list than this and k-means warns, rightly."""
_SCAN_SHARE = 0.05
"""Where a filter holds less than this its items are scanned: there a graph finds 6% of what it should."""


class FaissIndex:
    """`faiss.IndexFlatIP` behind the common interface."""

    def __init__(
        self,
        embedding: npt.NDArray[Any],
        *,
        skip: int = 0,
        attributes: Attributes | None = None,
        learnt: Learnt | None = None,
    ) -> None:
        self._vectors = check_table(embedding, skip)
        self.num_items, self.dimension = self._vectors.shape
        self._skip, self._attributes = skip, attributes
        self._index = self._make(self._vectors[skip:], learnt)

    @property
    def learnt(self) -> Learnt:
        """Nothing, as it scores everything."""
        return {}

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        exclude: Exclude = None,
        filters: Filters = None,
    ) -> Hits:
        """FAISS has no exclusion per query, so k plus the longest one is fetched, and the excluded dropped."""
        queries = check_query(self, queries, k)
        rows, excluded = flat_exclude(self, exclude, len(queries))
        longest = int(np.bincount(rows).max()) if len(rows) else 0
        fetched = min(k + longest, self.num_items - self._skip)
        hits = fill(len(queries), k)
        for wanted, group in by_filter(filters, len(queries)):
            mask = None if wanted is None else attributes_of(self._attributes).mask(wanted)
            found = self._found(queries[group], fetched, mask)
            hits.put(group, without_excluded(found, k, group, rows, excluded, self.num_items))
        return hits

    def _found(self, queries: npt.NDArray[np.float32], fetched: int, mask: Mask | None) -> Hits:
        if mask is None:
            return self._named(*self._index.search(queries, fetched))
        allowed = mask.copy()
        allowed[: self._skip] = False
        positions = np.flatnonzero(allowed)
        share = len(positions) / (self.num_items - self._skip)
        if share < _SCAN_SHARE:
            best = best_of(torch.from_numpy(self._vectors), queries, fetched, positions)
            return Hits(best.scores, positions[best.rows])
        bits = np.packbits(allowed[self._skip :], bitorder="little")
        selector = load_faiss().IDSelectorBitmap(bits)
        parameters = self._parameters(selector, share, fetched)
        return self._named(*self._index.search(queries, fetched, params=parameters))

    def _named(self, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> Hits:
        empty = rows < 0
        return Hits(np.where(empty, np.float32(-np.inf), scores), np.where(empty, EMPTY, rows + self._skip))

    def _parameters(self, selector: Any, share: float, fetched: int) -> Any:
        return load_faiss().SearchParameters(sel=selector)

    def _make(self, table: npt.NDArray[np.float32], learnt: Learnt | None) -> Any:
        index = load_faiss().IndexFlatIP(table.shape[1])
        index.add(table)
        return index


class FaissIVFIndex(FaissIndex):
    """`faiss.IndexIVFFlat`: looks into `num_probes` of `num_lists` clusters, more where a filter is; approximate.

    `num_lists` is 4 * sqrt(N) by default, and never leaves a cluster with too few points to train on.
    """

    def __init__(
        self,
        embedding: npt.NDArray[Any],
        *,
        skip: int = 0,
        attributes: Attributes | None = None,
        learnt: Learnt | None = None,
        num_lists: int | None = None,
        num_probes: int = 16,
    ) -> None:
        self._num_lists, self._num_probes = num_lists, num_probes
        super().__init__(embedding, skip=skip, attributes=attributes, learnt=learnt)

    @property
    def learnt(self) -> Learnt:
        """The clusters' centroids float32[L, D], and which of them each item belongs to, int64[N]."""
        centroids = self._index.quantizer.reconstruct_n(0, self._index.nlist)
        return {"centroids": centroids, "assigned": self._assigned}

    def _parameters(self, selector: Any, share: float, fetched: int) -> Any:
        probes = min(self._index.nlist, round(self._index.nprobe / share))
        return load_faiss().SearchParametersIVF(sel=selector, nprobe=probes)

    def _make(self, table: npt.NDArray[np.float32], learnt: Learnt | None) -> Any:
        faiss = load_faiss()
        count, dimension = table.shape
        lists = self._num_lists or int(4 * count**0.5)
        lists = max(1, min(lists, count // _MIN_POINTS_PER_LIST))
        coarse = faiss.IndexFlatIP(dimension)
        if learnt is not None:
            check_clusters(learnt["centroids"], learnt["assigned"], (lists, dimension), count)
            coarse.add(learnt["centroids"])
        index = faiss.IndexIVFFlat(coarse, dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(self._num_probes, lists)
        if learnt is None:
            index.train(table)
        self._assigned = coarse.search(table, 1)[1][:, 0] if learnt is None else learnt["assigned"]
        index.add_core(count, faiss.swig_ptr(table), None, faiss.swig_ptr(self._assigned))
        return index


class FaissHNSWIndex(FaissIndex):
    """`faiss.IndexHNSWFlat`: walks a graph of `num_links` a node with a beam of `effort`; approximate.

    The beam is at least twice k, and as much wider as a filter is narrow.
    """

    def __init__(
        self,
        embedding: npt.NDArray[Any],
        *,
        skip: int = 0,
        attributes: Attributes | None = None,
        learnt: Learnt | None = None,
        num_links: int = 32,
        effort: int = 128,
    ) -> None:
        self._num_links, self._effort = num_links, effort
        super().__init__(embedding, skip=skip, attributes=attributes, learnt=learnt)

    @property
    def learnt(self) -> Learnt:
        """The graph with the vectors in it, in FAISS's own form: uint8."""
        return {"graph": load_faiss().serialize_index(self._index)}

    def _found(self, queries: npt.NDArray[np.float32], fetched: int, mask: Mask | None) -> Hits:
        if mask is not None:
            return super()._found(queries, fetched, mask)
        parameters = self._parameters(None, 1.0, fetched)
        return self._named(*self._index.search(queries, fetched, params=parameters))

    def _parameters(self, selector: Any, share: float, fetched: int) -> Any:
        effort = round(max(self._effort, 2 * fetched) / share)
        return load_faiss().SearchParametersHNSW(sel=selector, efSearch=effort)

    def _make(self, table: npt.NDArray[np.float32], learnt: Learnt | None) -> Any:
        faiss = load_faiss()
        if learnt is not None:
            index = faiss.deserialize_index(learnt["graph"])
            if (index.ntotal, index.d) != table.shape:
                raise ValueError(f"the graph is of {index.ntotal} vectors of {index.d}, not {table.shape}")
            return index
        index = faiss.IndexHNSWFlat(table.shape[1], self._num_links, faiss.METRIC_INNER_PRODUCT)
        index.add(table)
        return index
