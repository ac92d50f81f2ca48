"""Recommend, inside the worker: encode histories, retrieve candidates, rank them, in one batch."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tradewind.retrieve import Index

Tensors = dict[str, torch.Tensor]


class RecommendPackage(Protocol):
    """What a package with task "recommend" holds."""

    @property
    def config(self) -> Mapping[str, Any]: ...
    def program(self, name: str) -> Any: ...


class Recommender:
    """Encode -> retrieve -> rank over a batch of users, histories as jagged tensors."""

    def __init__(self, package: RecommendPackage, index: Index, candidates: int, ranks: bool) -> None:
        self._encode = package.program("encode")
        self._rank = package.program("rank") if ranks else None
        self._index = index
        self._candidates = candidates

    def __call__(self, batch: Tensors) -> Tensors:
        """Return `items` INT64 [B, k] (positions, 0 where there are no more) and `scores` FP32 [B, k].

        Takes `values`, `timestamps`, `ratings` [T] with `lengths` [B]; `seen` [S], what to leave out, with
        `num_seen` [B]; `now`, `k` [B]; `user` [B, F].
        """
        offsets = torch.nn.functional.pad(batch["lengths"].cumsum(0), (1, 0))
        query = _only(
            self._encode(batch["values"], offsets, batch["timestamps"], batch["ratings"], batch["now"])
        )
        seen = _exclusions(batch["seen"], batch["num_seen"])
        found, positions = self._index.search(query.numpy(), self._candidates, exclude=seen)
        scores, candidates = torch.from_numpy(found), torch.from_numpy(positions)
        return self._top(query, candidates, scores, batch)

    def _top(
        self, query: torch.Tensor, candidates: torch.Tensor, retrieved: torch.Tensor, batch: Tensors
    ) -> Tensors:
        valid = torch.isfinite(retrieved) & (candidates > 0)
        candidates = torch.where(valid, candidates, 0)
        retrieved = torch.where(valid, retrieved, 0.0)
        scores = retrieved
        if self._rank is not None:
            scores = _only(self._rank(query, candidates, retrieved, batch["user"]))
        scores = torch.where(valid, scores, -torch.inf)
        width = min(int(batch["k"].max()), scores.shape[1])
        best, where = scores.topk(width, dim=1)
        return {"items": candidates.gather(1, where), "scores": best}


def _exclusions(seen: torch.Tensor, counts: torch.Tensor) -> list[npt.NDArray[np.int64]] | None:
    """Return the positions to leave out, per user; None when there are none."""
    return np.split(seen.numpy(), counts.cumsum(0)[:-1].numpy()) if len(seen) else None


def _only(result: Any) -> torch.Tensor:
    tensor: torch.Tensor = result[0] if isinstance(result, (tuple, list)) else result
    return tensor.detach()
