"""The plainest correct index: sort everything. The oracle of the others' tests."""

import numpy as np

from tradewind.retrieve.base import EMPTY, Exclude, Hits, check_query, check_table, flat_exclude


class NaiveIndex:
    """Scores every item of every query and sorts them."""

    def __init__(self, embedding: np.ndarray, *, skip: int = 0) -> None:
        self._table = check_table(embedding, skip)
        self._skip = skip
        self.num_items, self.dimension = self._table.shape

    def search(self, queries: np.ndarray, k: int, exclude: Exclude = None) -> Hits:
        queries = check_query(self, queries, k)
        rows, excluded = flat_exclude(self, exclude, len(queries))
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        positions = np.full((len(queries), k), EMPTY, dtype=np.int64)
        for b, query in enumerate(queries):
            banned = {*range(self._skip), *excluded[rows == b].tolist()}
            scored = [(float(self._table[i] @ query), i) for i in range(self.num_items) if i not in banned]
            for rank, (score, position) in enumerate(sorted(scored, key=lambda s: (-s[0], s[1]))[:k]):
                scores[b, rank], positions[b, rank] = score, position
        return Hits(scores, positions)
