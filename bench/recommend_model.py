"""The synthetic recommender's programs: what is fast enough to be served, and heavy enough to be worth degrading."""

import itertools

import numpy as np
import torch
from torch.export import Dim, ExportedProgram, export

from bench.harness import say
from tradewind.models.export import export_ranker
from tradewind.models.prerank import Candidates, distil, kept

USERS = 16
REORDERS = 1.0
"""Deviation of what the ranker adds, in deviations of the retrieval scores that it adds to: as much again."""


class Encode(torch.nn.Module):
    """The mean of a history's item embeddings, as a unit vector."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.from_numpy(table), requires_grad=False)

    def forward(self, values, offsets, timestamps, ratings, now):  # type: ignore[no-untyped-def]
        batch = offsets.shape[0] - 1
        row = torch.searchsorted(offsets, torch.arange(values.shape[0]), right=True) - 1
        total = torch.zeros(batch, self.table.shape[1]).index_add(0, row, self.table[values])
        return torch.nn.functional.normalize(total, dim=1)


class Rank(torch.nn.Module):
    """Retrieval scores, reordered by a network over query, item and their product."""

    scale: torch.Tensor

    def __init__(self, table: np.ndarray, hidden: int = 128) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.table = torch.nn.Parameter(torch.from_numpy(table), requires_grad=False)
        width = 3 * table.shape[1]
        self.net = torch.nn.Sequential(
            torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 64), torch.nn.ReLU(),
            torch.nn.Linear(64, 1),
        )  # fmt: skip

    def forward(self, query, candidates, retrieval_scores, user_features):  # type: ignore[no-untyped-def]
        items = self.table[candidates]
        users = query.unsqueeze(1).expand_as(items)
        extra = self.net(torch.cat([users, items, users * items], dim=2)).squeeze(2)
        return retrieval_scores + self.scale * extra + 0.0 * user_features.sum(1, keepdim=True)

    @torch.no_grad()
    def calibrate(self, queries: torch.Tensor, candidates: int) -> None:
        """Scale what is added to `REORDERS` of the retrieval scores' deviation, over the candidates of some queries."""
        scores, found = (queries @ self.table.T).topk(candidates, dim=1)
        extra = self(queries, found, torch.zeros_like(scores), torch.zeros(len(queries), 0))
        self.scale = REORDERS * scores.std(1).mean() / extra.std(1).mean()


def programs(table: np.ndarray, candidates: int, histories: list[list[int]]) -> dict[str, ExportedProgram]:
    """`encode`, `rank` and, where there are histories to learn it from, `prerank`; any number of users and candidates."""
    torch.manual_seed(0)
    dimension = table.shape[1]
    t = Dim("t", min=1)
    encode = export(
        Encode(table).eval(),
        (
            torch.ones(5, dtype=torch.int64),
            torch.tensor([0, 2, 5]),
            torch.ones(5, dtype=torch.int64),
            torch.ones(5),
            torch.tensor([2, 3]),
        ),
        dynamic_shapes=({0: t}, {0: Dim.AUTO}, {0: t}, {0: t}, {0: Dim.AUTO}),
    )
    ranker = Rank(table).eval()
    ranker.calibrate(ranker.table[torch.randint(1, len(table), (8,))], 500)
    found = {"encode": encode, "rank": export_ranker(ranker, dimension, 0)}
    if histories:
        found["prerank"] = _prerank(ranker, histories, candidates)
    return found


@torch.no_grad()
def _retrieved(table: torch.Tensor, histories: list[list[int]], candidates: int) -> Candidates:
    query = torch.nn.functional.normalize(
        torch.stack([table[history].sum(0) for history in histories]), dim=1
    )
    scores = query @ table.T
    scores[:, 0] = -torch.inf
    scores, items = scores.topk(candidates, dim=1)
    return Candidates(query, items, scores, torch.zeros(len(query), 0))


def _prerank(ranker: Rank, histories: list[list[int]], candidates: int) -> ExportedProgram:
    """Learn it from all but the last users, and say what it keeps of their best."""
    groups = [histories[start : start + USERS] for start in range(0, len(histories), USERS)]
    *learnt, held = [_retrieved(ranker.table, group, candidates) for group in groups]
    lists = itertools.cycle(learnt)
    prerank = distil(ranker, ranker.table, lambda: next(lists))
    shares = kept(ranker, prerank, held, [candidates // part for part in (20, 10, 5, 2)])
    say(
        "of the ranker's ten best, the pre-ranker keeps "
        + ", ".join(f"{v:.3f} in {n}" for n, v in shares.items())
    )
    return export_ranker(prerank, ranker.table.shape[1], 0)
