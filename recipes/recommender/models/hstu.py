"""HSTU, the hierarchical sequential transduction unit (Zhai et al. 2024, "Actions Speak Louder than Words").

A token is an event: x_t = e(item_t) + a(rating_t), the action embedding. Each layer computes, with
phi = SiLU and per head,

    U(X), V(X), Q(X), K(X) = Split(phi(f1(Norm(X))))            pointwise projection
    A(X) V(X) = phi(Q(X) K(X)^T / sqrt(d) + rab^{p,t}) V(X) / n  spatial aggregation, causal
    Y(X) = f2(Norm(A(X) V(X)) * U(X)) + X                        pointwise transformation

There is no softmax: a weight says how strongly, not how strongly compared with the rest. n is the
longest history. rab^{p,t}(i, j) = p[i - j] + w[bucket(now_i - t_j)], where t_j is event j's time
and now_i the time of the event that follows i: at serving the time of the request, in training
and evaluation the time of the next event, as in the authors' code. So a query knows *when* it is
asked, never *what* happened then. `Settings(time_bias=False)` leaves it out.
Departures: the bias has one value a head; 1/sqrt(d) keeps the scores' scale independent of width;
tokens may also carry the gap before the next event and its part of the calendar (`when.py`), and
queries random codes of their history, so that scores go down for what was seen (`seen.py`).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.recommender.jagged import Jagged
from recipes.recommender.models.base import SequenceModel, Settings
from recipes.recommender.models.when import TIME_BUCKETS, When, time_bucket

RATING_LEVELS = 11


class RelativeBias(nn.Module):
    """rab^{p,t}: a learned value a head for each distance and each time bucket."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(settings.heads, settings.max_history))
        self.time = nn.Parameter(torch.zeros(TIME_BUCKETS, settings.heads)) if settings.time_bias else None

    def forward(self, length: int, time: Tensor | None) -> Tensor:
        """[H, L, L], or [S, H, L, L] with time; cells above the diagonal are meaningless."""
        steps = torch.arange(length, device=self.position.device)
        bias = self.position[:, (steps[:, None] - steps[None]).clamp(min=0)]
        return bias if time is None else bias + time


class Layer(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.dimension
        self.heads, self.length = settings.heads, settings.max_history
        self.scale = math.sqrt(settings.heads / width)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.f1, self.f2 = nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.bias = RelativeBias(settings)
        self.dropout = nn.Dropout(settings.dropout)

    def attend(self, rows: Tensor, time: Tensor | None) -> Tensor:
        """Attention in one rectangle: rows [S, L, 3 D] (V, Q, K) -> [S * L, D]."""
        size, length, _ = rows.shape
        v, q, k = rows.view(size, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale) @ k.transpose(-1, -2) + self.bias(length, time)
        weights = functional.silu(scores).tril() / self.length
        return (weights @ v).transpose(1, 2).reshape(size * length, -1)

    def forward(self, x: Tensor, batch: Jagged, time: list[Tensor | None]) -> Tensor:
        width = x.shape[1]
        u, vqk = functional.silu(self.f1(self.norm_in(x))).split([width, 3 * width], dim=1)
        parts = [self.attend(vqk[index], b) for index, b in zip(batch.layout.groups, time, strict=True)]
        attended = torch.cat(parts)[batch.layout.where]
        return x + self.f2(self.dropout(self.norm_out(attended) * u))


class HSTU(SequenceModel):
    def __init__(self, num_items: int, settings: Settings, item_features: Tensor | None = None) -> None:
        super().__init__(num_items, settings, item_features)
        self.ratings = nn.Embedding(RATING_LEVELS, settings.dimension) if settings.ratings else None
        if self.ratings is not None:
            nn.init.normal_(self.ratings.weight, std=0.02)
        self.when = When(settings)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.dimension)
        self.dropout = nn.Dropout(settings.dropout)

    def hidden(self, batch: Jagged, table: Tensor) -> Tensor:
        x = functional.embedding(batch.values, table) * math.sqrt(self.settings.dimension)
        if self.ratings is not None:
            x = x + self.ratings((batch.ratings * 2).round().long().clamp(0, RATING_LEVELS - 1))
        x = self.dropout(self.when(x, batch))
        time = self._time_biases(batch)
        for layer, biases in zip(self.layers, time, strict=True):
            x = layer(x, batch, biases)
        return self.norm(x)

    def _time_biases(self, batch: Jagged) -> list[list[Tensor | None]]:
        """For each layer and group the time bias [S, H, L, L]; one lookup serves all layers."""
        if not self.settings.time_bias:
            return [[None] * len(batch.layout.groups)] * len(self.layers)
        table = torch.cat([layer.bias.time for layer in self.layers], 1)
        found = []
        for index in batch.layout.groups:
            elapsed = batch.next_times[index][:, :, None] - batch.timestamps[index][:, None, :]
            found.append(functional.embedding(time_bucket(elapsed), table).permute(0, 3, 1, 2))
        return list(zip(*(bias.chunk(len(self.layers), 1) for bias in found), strict=True))
