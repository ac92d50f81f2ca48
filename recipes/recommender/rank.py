"""The ranking stage: re-score the retrieved candidates of one request with item and user features.

    score(c) = retrieval(c) + w(c) . MLP([z(c), list place, item features, popularity, user features, query * item])

z(c) is the retrieval score standardised over the request's candidates. The last layer starts at
zero, so an untrained ranker keeps the retrieval order, and `fit_ranker` keeps the weights with the
best validation NDCG@10 among those it met, the untrained ones included: it can not do worse there.
It learns from the newest training events, listwise: softmax over the candidates, the target among them.
"""

import copy
import dataclasses

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.recommender.evaluate import held_batch
from recipes.recommender.models.base import SequenceModel
from recipes.recommender.models.popularity import training_counts
from recipes.recommender.split import Held, Split


class Ranker(nn.Module):
    """Scores candidates [B, K] given the query, their retrieval scores and the user's features."""

    embedding: Tensor
    item_features: Tensor

    def __init__(
        self, embedding: Tensor, item_features: Tensor, user_features: int, hidden: int = 32
    ) -> None:
        super().__init__()
        self.register_buffer("embedding", embedding.detach().clone())
        self.register_buffer("item_features", item_features)
        width = 2 + item_features.shape[1] + user_features + embedding.shape[1]
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, 1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(
        self, query: Tensor, candidates: Tensor, retrieval_scores: Tensor, user_features: Tensor
    ) -> Tensor:
        centre = retrieval_scores.mean(1, keepdim=True)
        spread = (retrieval_scores - centre).square().mean(1, keepdim=True).add(1e-6).sqrt()
        z = (retrieval_scores - centre) / spread
        place = (retrieval_scores[:, :, None] < retrieval_scores[:, None, :]).sum(2).to(z.dtype)
        items = functional.embedding(candidates, self.embedding)
        users = user_features[:, None, :].expand(-1, candidates.shape[1], -1)
        parts = [
            z[..., None],
            torch.log1p(place)[..., None],
            functional.embedding(candidates, self.item_features),
        ]
        inputs = torch.cat([*parts, users, items * query[:, None, :]], 2)
        return retrieval_scores + self.second(functional.silu(self.first(inputs)))[..., 0]


def item_side(split: Split) -> Tensor:
    """Item features for ranking [N + 1, G]: the log's own, and log popularity, standardised."""
    popularity = np.log1p(training_counts(split)).astype(np.float32)
    popularity = (popularity - popularity[1:].mean()) / (popularity[1:].std() or 1.0)
    return torch.from_numpy(np.concatenate([split.log.item_features.table, popularity[:, None]], 1))


def user_side(split: Split) -> tuple[list[str], Tensor]:
    """User features for ranking: their names and [U, F]; one column of zeros when the log has none."""
    features = split.log.user_features
    if not features.names:
        return ["none"], torch.zeros(split.log.num_users, 1)
    return list(features.names), torch.from_numpy(features.table)


@dataclasses.dataclass(frozen=True)
class Lists:
    """Retrieved candidates of many requests; `place[i]` is the target's column, -1 where it was not retrieved."""

    query: Tensor
    candidates: Tensor
    scores: Tensor
    user_features: Tensor
    targets: Tensor
    place: Tensor


@torch.no_grad()
def retrieve(
    model: SequenceModel, split: Split, held: Held, count: int, *, add_target: bool = False
) -> Lists:
    """The top `count` items of each question of `held`; `add_target` puts a missed target in the last column."""
    queries, candidates, scores = [], [], []
    for start in range(0, len(held.users), 256):
        rows = np.arange(start, min(start + 256, len(held.users)))
        batch = held_batch(split, held, rows)
        query, table = model(batch)
        every = query[batch.last] @ table.T
        every[:, 0] = -torch.inf
        top, items = every.topk(min(count, every.shape[1] - 1), dim=1)
        targets = torch.from_numpy(held.targets[rows])
        if add_target:
            missed = ~(items == targets[:, None]).any(1)
            items[missed, -1] = targets[missed]
            top[missed, -1] = every[missed, targets[missed]]
        queries.append(query[batch.last])
        candidates.append(items)
        scores.append(top)
    items, targets = torch.cat(candidates), torch.from_numpy(held.targets)
    found = items == targets[:, None]
    place = torch.where(found.any(1), found.int().argmax(1), -1)
    features = user_side(split)[1][torch.from_numpy(held.users)]
    return Lists(torch.cat(queries), items, torch.cat(scores), features, targets, place)


def newest_training_events(split: Split, count: int = 10) -> Held:
    """The last `count` training events of each user, as questions."""
    log, users, rows = split.log, [], []
    for user, (start, stop) in enumerate(zip(log.offsets[:-1], split.train_stop, strict=True)):
        newest = np.arange(max(start + 1, stop - count), stop)
        users.append(np.full(len(newest), user))
        rows.append(newest)
    row, who = np.concatenate(rows), np.concatenate(users)
    spans = np.stack([np.maximum(log.offsets[who], row - split.max_history), row], 1)
    return Held(who, spans, log.items[row], log.timestamps[row], [])


def ndcg10(scores: Tensor, lists: Lists) -> Tensor:
    """Each request's NDCG@10 after ranking; 0 where the target was not retrieved."""
    own = scores.gather(1, lists.place.clamp(min=0)[:, None])
    rank = 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    return torch.where((lists.place >= 0) & (rank <= 10), 1 / torch.log2(rank + 1.0), torch.zeros(()))


@torch.no_grad()
def score(ranker: Ranker, lists: Lists) -> Tensor:
    return ranker(lists.query, lists.candidates, lists.scores, lists.user_features)


@dataclasses.dataclass(frozen=True)
class Ranked:
    ranker: Ranker
    valid_before: float
    valid_after: float
    epochs: int
    """Epoch whose weights were kept; 0 when the retrieval order was best."""


def fit_ranker(
    model: SequenceModel, split: Split, *, count: int = 100, epochs: int = 6, seed: int = 0
) -> Ranked:
    """Train a ranker over the model's own candidates and keep what validation likes best."""
    torch.manual_seed(seed)
    model.eval()
    lists = retrieve(model, split, newest_training_events(split), count, add_target=True)
    valid = retrieve(model, split, split.valid, count)
    with torch.no_grad():
        table = model.scoring_table()
    ranker = Ranker(table, item_side(split), lists.user_features.shape[1])
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=1e-3, weight_decay=1e-2)
    before = best = float(ndcg10(score(ranker, valid), valid).mean())
    kept, kept_epoch = copy.deepcopy(ranker.state_dict()), 0
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(lists.targets)).split(256):
            part = [t[rows] for t in (lists.query, lists.candidates, lists.scores, lists.user_features)]
            value = functional.cross_entropy(ranker(*part), lists.place[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        reached = float(ndcg10(score(ranker, valid), valid).mean())
        if reached > best:
            best, kept, kept_epoch = reached, copy.deepcopy(ranker.state_dict()), epoch
    ranker.load_state_dict(kept)
    return Ranked(ranker.eval(), before, best, kept_epoch)
