"""SASRec (Kang and McAuley 2018, "Self-Attentive Sequential Recommendation"), pre-norm, on jagged batches."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.recommender.jagged import Jagged
from recipes.recommender.models.base import SequenceModel, Settings


class Layer(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.dimension
        self.heads = settings.heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(settings.dropout)

    def attend(self, rows: Tensor) -> Tensor:
        size, length, _ = rows.shape
        q, k, v = rows.view(size, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(size * length, -1)

    def forward(self, x: Tensor, batch: Jagged) -> Tensor:
        qkv = self.qkv(self.norm_attention(x))
        attended = torch.cat([self.attend(qkv[index]) for index in batch.layout.groups])[batch.layout.where]
        x = x + self.dropout(self.out(attended))
        return x + self.dropout(self.down(functional.gelu(self.up(self.norm_feed(x)))))


class SASRec(SequenceModel):
    def __init__(self, num_items: int, settings: Settings, item_features: Tensor | None = None) -> None:
        super().__init__(num_items, settings, item_features)
        self.position = nn.Parameter(torch.randn(settings.max_history, settings.dimension) * 0.02)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.dimension)
        self.dropout = nn.Dropout(settings.dropout)

    def hidden(self, batch: Jagged, table: Tensor) -> Tensor:
        token = torch.arange(batch.values.shape[0], device=table.device)
        position = token - batch.offsets[batch.sequence]
        x = functional.embedding(batch.values, table) * math.sqrt(self.settings.dimension)
        x = self.dropout(
            x + functional.embedding(position, self.position) * math.sqrt(self.settings.dimension)
        )
        for layer in self.layers:
            x = layer(x, batch)
        return self.norm(x)
