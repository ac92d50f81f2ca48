"""Full ranking over every item: HR@{10,50}, NDCG@{10,50} and MRR, kept per user.

An item's rank is 1 + the number of items scored above it, ties counted half (so a constant score
earns no luck). No item is left out by default: RecBole's protocol for sequential models, in which
an item already seen may outrank the target. `mask_seen` leaves those out; both are printed.
"""

import dataclasses

import numpy as np
import torch
from torch import nn

from recipes.recommender.jagged import Jagged, collate
from recipes.recommender.split import Held, Split

CUTS = (10, 50)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`ranks[i]` (from 1) of user `users[i]`'s held-out item."""

    users: np.ndarray
    ranks: np.ndarray

    def per_user(self) -> dict[str, np.ndarray]:
        """Each metric's value for each user, for paired comparisons."""
        values = {"mrr": 1.0 / self.ranks}
        for cut in CUTS:
            hit = self.ranks <= cut
            values[f"hr@{cut}"] = hit.astype(float)
            values[f"ndcg@{cut}"] = np.where(hit, 1.0 / np.log2(self.ranks + 1.0), 0.0)
        return values

    def metrics(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.per_user().items()}


def rank_of(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Rank of each row's target among columns 1.. of `scores` [B, N + 1]; column 0 is padding."""
    own = scores.gather(1, targets[:, None])
    others = scores[:, 1:]
    above = (others > own).sum(1)
    ties = (others == own).sum(1) - 1
    return 1 + above + ties / 2


def held_batch(split: Split, held: Held, rows: np.ndarray) -> Jagged:
    """The histories of these rows of `held`, asked at the time of the held-out event."""
    log = split.log
    return collate(log.items, log.timestamps, log.ratings, held.spans[rows], held.now[rows])


def mask(scores: torch.Tensor, held: Held, rows: np.ndarray) -> None:
    """Put what each user has seen, but not the target itself, out of reach, in place."""
    lengths = [len(held.seen[row]) for row in rows]
    row = torch.from_numpy(np.repeat(np.arange(len(rows)), lengths))
    column = torch.from_numpy(np.concatenate([held.seen[i] for i in rows]))
    target = torch.from_numpy(held.targets[rows])
    keep = column != target[row]
    scores[row[keep], column[keep]] = -torch.inf


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, held: Held, *, mask_seen: bool = False, batch_size: int = 256
) -> Evaluation:
    """Rank every user's held-out item with the model in evaluation mode (its mode is restored)."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    ranks = []
    for start in range(0, len(held.users), batch_size):
        rows = np.arange(start, min(start + batch_size, len(held.users)))
        batch = held_batch(split, held, rows)
        query, table = model(batch.to(device))
        scores = (query[batch.last] @ table.T).cpu()
        if mask_seen:
            mask(scores, held, rows)
        ranks.append(rank_of(scores, torch.from_numpy(held.targets[rows])).numpy())
    model.train(training)
    return Evaluation(held.users, np.concatenate(ranks) if ranks else np.zeros(0))


def evaluate_popularity(counts: np.ndarray, held: Held, *, mask_seen: bool = False) -> Evaluation:
    """The popularity baseline under the same protocol."""
    rows = np.arange(len(held.users))
    scores = torch.from_numpy(counts).float().repeat(len(rows), 1)
    if mask_seen:
        mask(scores, held, rows)
    return Evaluation(held.users, rank_of(scores, torch.from_numpy(held.targets)).numpy())
