"""Exact retrieval: one matrix product and a partial sort."""

import numpy as np
import torch

from tradewind.retrieve.base import EMPTY, Exclude, Hits, check_query, check_table, flat_exclude

_BLOCK = 1 << 25
"""Scores held at once (128 MiB)."""


class ExactIndex:
    """Scores every item with one matrix product per block of queries, on `device`."""

    def __init__(self, embedding: np.ndarray, *, skip: int = 0, device: str = "cpu") -> None:
        table = torch.from_numpy(check_table(embedding, skip))
        self.num_items, self.dimension = table.shape
        self._skip = skip
        self._table = table.to(device)

    def search(self, queries: np.ndarray, k: int, exclude: Exclude = None) -> Hits:
        queries = check_query(self, queries, k)
        rows, excluded = flat_exclude(self, exclude, len(queries))
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        positions = np.full((len(queries), k), EMPTY, dtype=np.int64)
        block = max(1, _BLOCK // self.num_items)
        for start in range(0, len(queries), block):
            inside = slice(*np.searchsorted(rows, [start, start + block]))
            found = self._block(queries[start : start + block], k, rows[inside] - start, excluded[inside])
            width = found.scores.shape[1]
            scores[start : start + block, :width] = found.scores
            positions[start : start + block, :width] = found.positions
        positions[np.isneginf(scores)] = EMPTY
        return Hits(scores, positions)

    def _block(self, queries: np.ndarray, k: int, rows: np.ndarray, excluded: np.ndarray) -> Hits:
        device = self._table.device
        with torch.inference_mode():
            scores = torch.from_numpy(queries).to(device) @ self._table.T
            scores[:, : self._skip] = -torch.inf
            if len(rows):
                scores[torch.from_numpy(rows).to(device), torch.from_numpy(excluded).to(device)] = -torch.inf
            best = torch.topk(scores, min(k, self.num_items), dim=1)
            return Hits(best.values.cpu().numpy(), best.indices.cpu().numpy())
