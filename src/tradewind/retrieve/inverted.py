"""Inverted lists that are probed until enough items were seen that the search may return.

A fixed number of probes sees few allowed items where a filter is narrow, or is about something far from the query. Here
each query looks into lists, nearest first, until they hold `need` allowed items together: the count of allowed items in
each list is known per filter.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tradewind.errors import MissingExtraError

_POINTS_PER_LIST = 64
_ITERATIONS = 10
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Grouped(NamedTuple):
    """Allowed items list by list: positions int32[M], those of list i from `starts[i]` to `starts[i + 1]`.

    A query by itself scores these and looks at no others. FAISS asks a bitmap about each item of a list, which costs more
    than the products do.
    """

    positions: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]

    def those_of(self, lists: Ints) -> Ints:
        """The positions of some lists, one list after another."""
        starts = self.starts[lists]
        sizes = self.starts[lists + 1] - starts
        ends = sizes.cumsum()
        places = np.repeat(starts - ends + sizes, sizes) + np.arange(sizes.sum())
        positions: Ints = self.positions[places].astype(np.int64)
        return positions


class Allowed:
    """What a search may return: a bit per position, how many allowed items each list holds, and which, where that is known.

    Never changes.
    """

    def __init__(
        self,
        bits: npt.NDArray[np.uint8],
        per_list: npt.NDArray[np.int32],
        grouped: Grouped | None = None,
    ) -> None:
        self.bits, self.per_list, self.grouped = bits, per_list, grouped
        self.total = int(per_list.sum())
        self.selector = load_faiss().IDSelectorBitmap(bits)


class Probes(NamedTuple):
    """The lists each query looks into, nearest first (-1 ends a row), and how many rows those hold."""

    lists: Ints
    scores: Floats
    visited: Ints


class Inverted:
    """`faiss.IndexIVFFlat` by inner product, its items named by their positions. Never changes; searched by any thread."""

    def __init__(
        self, centroids: Floats, vectors: Floats, positions: Ints, assigned: Ints | None = None
    ) -> None:
        faiss = load_faiss()
        self.centroids, self.positions = centroids, positions
        dimension, self.num_lists = centroids.shape[1], len(centroids)
        if assigned is not None:
            check_clusters(centroids, assigned, (self.num_lists, vectors.shape[1]), len(vectors))
        self._coarse = faiss.IndexFlatIP(dimension)
        self._coarse.add(centroids)
        self.assigned: Ints = self._coarse.search(vectors, 1)[1][:, 0] if assigned is None else assigned
        index = faiss.IndexIVFFlat(self._coarse, dimension, self.num_lists, faiss.METRIC_INNER_PRODUCT)
        pointer = faiss.swig_ptr
        index.add_core(len(vectors), pointer(vectors), pointer(positions), pointer(self.assigned))
        self._index, self._faiss = index, faiss
        self.sizes = np.bincount(self.assigned, minlength=self.num_lists).astype(np.int32)
        self._by_list = positions[np.argsort(self.assigned, kind="stable")].astype(np.int32)
        self._starts = np.concatenate([[0], self.sizes.cumsum()])

    @classmethod
    def trained(cls, vectors: Floats, positions: Ints) -> "Inverted":
        """Lists of about sqrt(N) items each, from spherical k-means on a sample."""
        faiss = load_faiss()
        lists = max(1, round(len(vectors) ** 0.5))
        means = faiss.Kmeans(
            vectors.shape[1],
            lists,
            niter=_ITERATIONS,
            spherical=True,
            seed=1,
            max_points_per_centroid=_POINTS_PER_LIST,
            min_points_per_centroid=1,
        )
        means.train(vectors)
        return cls(np.ascontiguousarray(means.centroids), vectors, positions)

    def allow(self, mask: npt.NDArray[np.bool_]) -> Allowed:
        """The items of bool[N], by position, in the form `search` takes."""
        held = mask[self._by_list]
        before = np.zeros(len(held) + 1, dtype=np.int32)
        np.cumsum(held, out=before[1:])
        grouped = Grouped(self._by_list[held], before[self._starts])
        return Allowed(np.packbits(mask, bitorder="little"), np.diff(grouped.starts), grouped)

    def probes(self, queries: Floats, need: int, allowed: Allowed | None) -> Probes:
        """The fewest lists, nearest first, that hold `need` allowed items for each query; all where there are fewer."""
        counts, total = (
            (self.sizes, len(self.positions)) if allowed is None else (allowed.per_list, allowed.total)
        )
        width = min(self.num_lists, 4 + int(1.5 * need * self.num_lists / max(1, total)))
        while True:
            scores, lists = self._coarse.search(queries, width)
            seen = counts[lists].cumsum(1)
            if width == self.num_lists or (seen[:, -1] >= need).all():
                break
            width = min(self.num_lists, 4 * width)
        used = (seen < need).sum(1) + 1
        width = min(width, int(used.max(initial=1)))
        lists, scores = lists[:, :width], np.ascontiguousarray(scores[:, :width])
        if len(queries) == 1:
            return Probes(lists, scores, self.sizes[lists].sum(1))
        beyond = np.arange(width) >= used[:, None]
        lists = np.where(beyond, -1, lists)
        return Probes(lists, scores, np.where(beyond, 0, self.sizes[lists]).sum(1))

    def search(self, queries: Floats, k: int, probes: Probes, allowed: Allowed | None) -> tuple[Floats, Ints]:
        """The k best items of the probed lists that are allowed; -1 with -inf where there are fewer."""
        faiss, pointer = self._faiss, self._faiss.swig_ptr
        scores = np.empty((len(queries), k), dtype=np.float32)
        positions = np.empty((len(queries), k), dtype=np.int64)
        selector = None if allowed is None else allowed.selector
        parameters = faiss.SearchParametersIVF(nprobe=probes.lists.shape[1], sel=selector)
        self._index.search_preassigned_c(
            len(queries), pointer(queries), k, pointer(probes.lists), pointer(probes.scores),
            pointer(scores), pointer(positions), False, parameters,
        )  # fmt: skip
        scores[positions < 0] = -np.inf
        return scores, positions


def check_clusters(centroids: Floats, assigned: Ints, shape: tuple[int, ...], count: int) -> None:
    """Raise ValueError unless these are centroids of this shape, and the cluster of each of `count` items."""
    if centroids.dtype != np.float32 or centroids.shape != shape:
        raise ValueError(f"centroids are {centroids.dtype}{list(centroids.shape)}, not float32{list(shape)}")
    if assigned.dtype != np.int64 or assigned.shape != (count,):
        raise ValueError(f"clusters are {assigned.dtype}{list(assigned.shape)}, not int64[{count}]")
    if count and not 0 <= assigned.min() <= assigned.max() < len(centroids):
        raise ValueError(f"an item's cluster is outside 0 to {len(centroids) - 1}")


def load_faiss() -> Any:
    """The faiss module, or MissingExtraError."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("this index needs FAISS: pip install 'tradewind[serve]'") from error
    return faiss
