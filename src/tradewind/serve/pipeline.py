"""Recommend, inside the worker: encode histories, retrieve candidates, rank them, in one batch."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tradewind.models import Package
from tradewind.retrieve import Index

Tensors = dict[str, torch.Tensor]


class Recommender:
    """Encode -> retrieve -> rank over a batch of users, histories as jagged tensors."""

    def __init__(
        self,
        package: Package,
        index: Index,
        candidates: int,
        ranks: bool,
        popular: Sequence[int] = (),
    ) -> None:
        self._encode = package.program("encode")
        self._rank = package.program("rank") if ranks else None
        self._index = index
        self._candidates = candidates
        self._popular = torch.tensor(popular, dtype=torch.int64)

    def at(self, candidates: int, ranks: bool) -> "Recommender":
        """Return the same pipeline with so many candidates, ranked or in the order in which they were retrieved."""
        other = copy.copy(self)
        other._candidates = candidates
        other._rank = self._rank if ranks else None
        return other

    def __call__(self, batch: Tensors) -> Tensors:
        """Return `items` INT64 [B, k] (positions, 0 where there are no more) and `scores` FP32 [B, k].

        A user whose history is the single item 0 has none, and gets the popular items, where the package names any.
        Takes `values`, `timestamps`, `ratings` [T] with `lengths` [B]; `seen` [S], what to leave out, with
        `num_seen` [B]; `now`, `k` [B]; `user` [B, F].
        """
        offsets = torch.nn.functional.pad(batch["lengths"].cumsum(0), (1, 0))
        query = _only(
            self._encode(batch["values"], offsets, batch["timestamps"], batch["ratings"], batch["now"])
        )
        _check_finite("encode", query)
        seen = _exclusions(batch["seen"], batch["num_seen"])
        found, positions = self._index.search(query.numpy(), self._candidates, exclude=seen)
        scores, candidates = torch.from_numpy(found), torch.from_numpy(positions)
        top = self._top(query, candidates, scores, batch)
        if len(self._popular):
            self._without_history(top, batch["values"][offsets[:-1]] == 0)
        return top

    def _top(
        self, query: torch.Tensor, candidates: torch.Tensor, retrieved: torch.Tensor, batch: Tensors
    ) -> Tensors:
        valid = torch.isfinite(retrieved) & (candidates > 0)
        candidates = torch.where(valid, candidates, 0)
        retrieved = torch.where(valid, retrieved, 0.0)
        scores = retrieved
        if self._rank is not None:
            scores = _only(self._rank(query, candidates, retrieved, batch["user"]))
            _check_finite("rank", torch.where(valid, scores, 0.0))
        scores = torch.where(valid, scores, -torch.inf)
        width = min(int(batch["k"].max()), scores.shape[1])
        best, where = scores.topk(width, dim=1)
        return {"items": candidates.gather(1, where), "scores": best}

    def _without_history(self, top: Tensors, cold: torch.Tensor) -> None:
        """Put the popular items in the rows of `cold`; their scores are one over their rank."""
        width = top["items"].shape[1]
        some = self._popular[:width]
        items = torch.zeros(width, dtype=torch.int64)
        scores = torch.full((width,), -torch.inf)
        items[: len(some)] = some
        scores[: len(some)] = 1.0 / torch.arange(1, len(some) + 1)
        top["items"][cold], top["scores"][cold] = items, scores


def _exclusions(seen: torch.Tensor, counts: torch.Tensor) -> list[npt.NDArray[np.int64]] | None:
    """Return the positions to leave out, per user; None when there are none."""
    return np.split(seen.numpy(), counts.cumsum(0)[:-1].numpy()) if len(seen) else None


def _check_finite(program: str, tensor: torch.Tensor) -> None:
    """Raise before NaN, which sorts first, becomes the best item there is."""
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{program} gave NaN or infinity")


def _only(result: Any) -> torch.Tensor:
    tensor: torch.Tensor = result[0] if isinstance(result, (tuple, list)) else result
    return tensor.detach()
