"""A light ranker learnt from a heavy one: of the candidates that were retrieved, it says which are worth ranking.

Between retrieval, which knows users and items apart, and a ranker that looks at each pair of them, a pre-ranker looks at
all candidates at a few hundredths of the ranker's cost, and leaves it the best. It learns the ranker's scores
(distillation: Hinton, Vinyals and Dean 2015; for rankings, Tang and Wang, KDD 2018), not clicks: it need not be right,
only of the ranker's opinion.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from tradewind.errors import SpecError

Ranker = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(query, candidates, retrieval scores, user features) -> scores FP32 [B, K]; a module or a packaged program."""


class Candidates(NamedTuple):
    """What retrieval found for some users."""

    query: torch.Tensor
    """FP32 [B, D]"""
    items: torch.Tensor
    """Positions, INT64 [B, K]"""
    scores: torch.Tensor
    """Of retrieval, FP32 [B, K]"""
    user_features: torch.Tensor
    """FP32 [B, F]"""


class PreRanker(torch.nn.Module):
    """retrieval score + v . relu(U [query; user features] + W item + w retrieval score + b).

    What depends on the item alone is computed for every item when learning ends (`fold`); then a candidate costs one row
    of `hidden` floats and as many multiplications.
    """

    folded: torch.Tensor

    def __init__(self, items: torch.Tensor, dimension: int, user_features: int, hidden: int = 32) -> None:
        """`items`: what is known of each, FP32 [N, G]; queries have `dimension`."""
        super().__init__()
        self.user = torch.nn.Linear(dimension + user_features, hidden)
        self.item: torch.nn.Module = torch.nn.Linear(items.shape[1], hidden, bias=False)
        self.retrieved = torch.nn.Parameter(torch.zeros(hidden))
        self.out = torch.nn.Linear(hidden, 1, bias=False)
        self._items: torch.Tensor | None = items
        self.register_buffer("folded", torch.zeros(0, hidden))

    def forward(
        self,
        query: torch.Tensor,
        candidates: torch.Tensor,
        retrieval_scores: torch.Tensor,
        user_features: torch.Tensor,
    ) -> torch.Tensor:
        """Return scores FP32 [B, K]."""
        if self._items is None:
            items = torch.nn.functional.embedding(candidates, self.folded)
        else:
            items = self.item(torch.nn.functional.embedding(candidates, self._items))
        users = self.user(torch.cat([query, user_features], 1)).unsqueeze(1)
        hidden = torch.relu(users + items + retrieval_scores.unsqueeze(2) * self.retrieved)
        scores: torch.Tensor = retrieval_scores + self.out(hidden).squeeze(2)
        return scores

    @torch.no_grad()
    def fold(self) -> "PreRanker":
        """Compute what depends on items alone; it learns no more after that."""
        if self._items is not None:
            self.folded, self._items = self.item(self._items), None
            self.item = torch.nn.Identity()
            self.requires_grad_(False)
        return self.eval()


def distil(
    ranker: Ranker,
    items: torch.Tensor,
    sample: Callable[[], Candidates],
    *,
    steps: int = 300,
    hidden: int = 32,
    lr: float = 1e-2,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> PreRanker:
    """Learn a ranker's opinion of the candidates that `sample` draws, anew at each step; return it folded.

    `items` is what the pre-ranker may know of each item, FP32 [N, G]: the embeddings, or more. The loss is the mean
    squared difference of the two's scores, each less its mean over a user's candidates, in units of the ranker's
    variance: 0 is the same opinion, 1 none. `on_step` is told step and loss. Raises SpecError where the ranker's
    scores are no numbers, or are the same for all candidates.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = sample()
        student = PreRanker(items, first.query.shape[1], first.user_features.shape[1], hidden)
        optimizer = torch.optim.Adam(student.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
        for step in range(steps):
            found = sample() if step else first
            with torch.no_grad():
                wanted = _centred(ranker(*found))
            spread = wanted.square().mean()
            if not (torch.isfinite(spread) and spread > 0):
                raise SpecError(
                    "the ranker's scores are NaN, infinite or all the same; there is nothing to learn"
                )
            loss = (_centred(student(*found)) - wanted).square().mean() / spread
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if on_step is not None:
                on_step(step, float(loss.detach()))
    return student.fold()


@torch.no_grad()
def kept(
    ranker: Ranker, preranker: Ranker, found: Candidates, left: Sequence[int], best: int = 10
) -> dict[int, float]:
    """Return which share of the ranker's `best` items is among the pre-ranker's best, for each number in `left`."""
    wanted = ranker(*found).topk(best, dim=1).indices
    order = preranker(*found).argsort(dim=1, descending=True).argsort(dim=1)
    place = order.gather(1, wanted)
    return {count: float((place < count).float().mean()) for count in left}


def _centred(scores: torch.Tensor) -> torch.Tensor:
    return scores - scores.mean(1, keepdim=True)
