"""Exact retrieval: one matrix product and a partial sort."""

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
)
from tradewind.retrieve.columns import Mask
from tradewind.retrieve.scan import largest
from tradewind.retrieve.segments import attributes_of

_BLOCK = 1 << 25
"""Scores held at once (128 MiB)."""


class ExactIndex:
    """Scores every item with one matrix product per block of queries, on `device`."""

    def __init__(
        self,
        embedding: npt.NDArray[Any],
        *,
        skip: int = 0,
        attributes: Attributes | None = None,
        device: str = "cpu",
    ) -> None:
        table = torch.from_numpy(check_table(embedding, skip))
        self.num_items, self.dimension = table.shape
        self._skip, self._attributes = skip, attributes
        self._table = table.to(device)

    @property
    def learnt(self) -> Learnt:
        """Nothing."""
        return {}

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        exclude: Exclude = None,
        filters: Filters = None,
    ) -> Hits:
        queries = check_query(self, queries, k)
        rows, excluded = flat_exclude(self, exclude, len(queries))
        hits = fill(len(queries), k)
        block = max(1, _BLOCK // self.num_items)
        for wanted, group in by_filter(filters, len(queries)):
            banned = None if wanted is None else ~attributes_of(self._attributes).mask(wanted)
            for start in range(0, len(group), block):
                some = group[start : start + block]
                where, inside = np.nonzero(some[:, None] == rows)
                hits.put(some, self._block(queries[some], k, where, excluded[inside], banned))
        hits.positions[np.isneginf(hits.scores)] = EMPTY
        return hits

    def _block(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        rows: npt.NDArray[np.int64],
        excluded: npt.NDArray[np.int64],
        banned: Mask | None,
    ) -> Hits:
        device = self._table.device
        with torch.inference_mode():
            scores = torch.from_numpy(queries).to(device) @ self._table.T
            scores[:, : self._skip] = -torch.inf
            if banned is not None:
                scores.masked_fill_(torch.from_numpy(banned).to(device), -torch.inf)
            if len(rows):
                scores[torch.from_numpy(rows).to(device), torch.from_numpy(excluded).to(device)] = -torch.inf
            values, positions = largest(scores, min(k, self.num_items))
            return Hits(values.cpu().numpy(), positions.cpu().numpy())
