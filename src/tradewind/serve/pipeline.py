"""Recommend, inside the worker: encode histories, retrieve candidates, pre-rank and rank them, in one batch."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tradewind.retrieve import Filter, Index
from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.audit import Audit
from tradewind.retrieve.auto import AutoIndex
from tradewind.serve.filtering import FILTER, FILTER_BYTES, filters_of
from tradewind.serve.ladder import Rung
from tradewind.serve.programs import Programs, Running

Tensors = dict[str, torch.Tensor]


class Recommender:
    """Encode -> retrieve -> pre-rank -> rank over a batch of users, histories as jagged tensors; at one level."""

    def __init__(
        self,
        programs: Programs,
        index: Index,
        rung: Rung,
        popular: Sequence[int] = (),
        attributes: Attributes | None = None,
    ) -> None:
        self._programs = programs
        self._encode = programs("encode")
        self._index = index
        self._take(rung)
        self._popular = tuple(popular)
        self._popular_attributes = (
            None if attributes is None else attributes.take(np.array(popular, np.int64))
        )

    @property
    def audit(self) -> Audit | None:
        """What is known of the index's recall; None for one that misses nothing, or keeps no account of it."""
        return self._index.audit if isinstance(self._index, AutoIndex) else None

    @property
    def popular_attributes(self) -> Attributes | None:
        """The attributes of the popular items, in their order."""
        return self._popular_attributes

    def at(self, rung: Rung) -> "Recommender":
        """Return the same pipeline at another level."""
        other = copy.copy(self)
        other._take(rung)
        return other

    def _take(self, rung: Rung) -> None:
        self._rung = rung
        self._prerank = self._programs("prerank") if rung.preranked else None
        self._rank = self._programs("rank") if rung.rank else None

    @property
    def uses(self) -> frozenset[str]:
        """The programs that it calls at its level."""
        return frozenset(p.name for p in (self._encode, self._prerank, self._rank) if p is not None)

    def __call__(self, batch: Tensors) -> Tensors:
        """Return `items` INT64 [B, k] (positions, 0 where there are no more) and `scores` FP32 [B, k].

        A user whose history is the single item 0 has none, and gets the popular items, where the package names any.
        Takes `values`, `timestamps`, `ratings` [T] with `lengths` [B]; `seen` [S], what to leave out, with
        `num_seen` [B]; `now`, `k` [B]; `user` [B, F]; where items have attributes, `filter` UINT8 [S], the JSON of the
        users' filters, with `filter_bytes` [B], 0 for none. No item that a user's filter does not hold is in their row.
        """
        offsets = torch.nn.functional.pad(batch["lengths"].cumsum(0), (1, 0))
        query = _only(
            self._encode(batch["values"], offsets, batch["timestamps"], batch["ratings"], batch["now"])
        )
        _check_finite("encode", query)
        seen = _exclusions(batch["seen"], batch["num_seen"])
        wanted = _filters(batch)
        found, positions = self._index.search(
            query.numpy(), self._rung.candidates, exclude=seen, filters=wanted
        )
        scores, candidates = torch.from_numpy(found), torch.from_numpy(positions)
        top = self._top(query, candidates, scores, batch)
        if self._popular:
            cold = (batch["values"][offsets[:-1]] == 0).nonzero().flatten().tolist()
            for row in cold:
                self._without_history(top, row, wanted[row] if wanted else None)
        return top

    def _top(
        self, query: torch.Tensor, candidates: torch.Tensor, retrieved: torch.Tensor, batch: Tensors
    ) -> Tensors:
        valid = torch.isfinite(retrieved) & (candidates > 0)
        candidates = torch.where(valid, candidates, 0)
        retrieved = torch.where(valid, retrieved, 0.0)
        scores = torch.where(valid, retrieved, -torch.inf)
        width = min(int(batch["k"].max()), scores.shape[1])
        ranked = scores.shape[1]
        if self._prerank is not None:
            scores = _scored(self._prerank, query, candidates, retrieved, valid, batch["user"])
            ranked = min(self._rung.preranked, ranked)
            scores, kept = scores.topk(max(ranked, width), dim=1)
            candidates, retrieved, valid = (t.gather(1, kept) for t in (candidates, retrieved, valid))
        behind, beyond = scores[:, ranked:width], candidates[:, ranked:width]
        scores, candidates, retrieved, valid = (t[:, :ranked] for t in (scores, candidates, retrieved, valid))
        if self._rank is not None:
            scores = _scored(self._rank, query, candidates, retrieved, valid, batch["user"])
        best, where = scores.topk(min(width, ranked), dim=1)
        items = candidates.gather(1, where)
        if width > ranked:
            # Who asks for more than are ranked gets the others behind them, as they were pre-ranked.
            items = torch.cat([items, beyond], dim=1)
            best = torch.cat([best, torch.minimum(behind, best[:, -1:])], dim=1)
        return {"items": items, "scores": best}

    def _without_history(self, top: Tensors, row: int, wanted: Filter | None) -> None:
        """Put the popular items in a row; their scores are one over their rank.

        Of those few a filter may hold none: what was retrieved with it comes after them.
        """
        width, some = top["items"].shape[1], list(self._popular)
        if wanted is not None and self._popular_attributes is not None:
            held = self._popular_attributes.mask(wanted).tolist()
            some = [item for item, holds in zip(some, held, strict=True) if holds]
            some += [item for item in top["items"][row].tolist() if item and item not in some]
        some = some[:width]
        top["items"][row], top["scores"][row] = 0, -torch.inf
        top["items"][row, : len(some)] = torch.tensor(some, dtype=torch.int64)
        top["scores"][row, : len(some)] = 1.0 / torch.arange(1, len(some) + 1)


def _exclusions(seen: torch.Tensor, counts: torch.Tensor) -> list[npt.NDArray[np.int64]] | None:
    """Return the positions to leave out, per user; None when there are none."""
    return np.split(seen.numpy(), counts.cumsum(0)[:-1].numpy()) if len(seen) else None


def _filters(batch: Tensors) -> list[Filter | None] | None:
    if FILTER not in batch:
        return None
    return filters_of(batch[FILTER].numpy().tobytes(), batch[FILTER_BYTES].tolist())


def _scored(
    program: Running,
    query: torch.Tensor,
    candidates: torch.Tensor,
    retrieved: torch.Tensor,
    valid: torch.Tensor,
    user: torch.Tensor,
) -> torch.Tensor:
    """Return a ranker's scores [B, K], -inf where there is no candidate."""
    scores = _only(program(query, candidates, retrieved, user))
    _check_finite(program.name, torch.where(valid, scores, 0.0))
    return torch.where(valid, scores, -torch.inf)


def _check_finite(program: str, tensor: torch.Tensor) -> None:
    """Raise before NaN, which sorts first, becomes the best item there is."""
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{program} gave NaN or infinity")


def _only(result: Any) -> torch.Tensor:
    tensor: torch.Tensor = result[0] if isinstance(result, (tuple, list)) else result
    return tensor.detach()
