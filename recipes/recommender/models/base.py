"""What every sequence model offers: a query a token, and item embeddings to score it against."""

import dataclasses

import torch
from torch import Tensor, nn

from recipes.recommender.jagged import Jagged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Shape and regularisation, shared by the sequence models; each may ignore what it has no use for."""

    dimension: int = 64
    layers: int = 2
    heads: int = 2
    max_history: int = 50
    dropout: float = 0.3
    temperature: float = 0.0
    """0: plain dot products. Else queries and items are L2-normalised and the score divided by this."""
    item_features: bool = False
    time_bias: bool = True
    ratings: bool = True


class ItemEmbedding(nn.Module):
    """Item table, tied between input and output, plus a projection of the items' features."""

    features: Tensor

    def __init__(self, num_items: int, settings: Settings, features: Tensor | None) -> None:
        super().__init__()
        weight = torch.randn(num_items, settings.dimension) * 0.02
        weight[0] = 0.0  # an unknown item says nothing
        self.weight = nn.Parameter(weight)
        use = features if settings.item_features and features is not None else torch.zeros(num_items, 0)
        self.register_buffer("features", use, persistent=False)
        self.project = nn.Linear(use.shape[1], settings.dimension, bias=False) if use.shape[1] else None
        if self.project is not None:
            nn.init.normal_(self.project.weight, std=0.02)

    def forward(self) -> Tensor:
        """The whole table [N + 1, D]."""
        return self.weight if self.project is None else self.weight + self.project(self.features)


class SequenceModel(nn.Module):
    """Base: `hidden` is the model proper; scoring (dot product or scaled cosine) is shared."""

    def __init__(self, num_items: int, settings: Settings, item_features: Tensor | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.items = ItemEmbedding(num_items, settings, item_features)

    def hidden(self, batch: Jagged, table: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, batch: Jagged) -> tuple[Tensor, Tensor]:
        """Queries [T, D], one a token, and item embeddings [N + 1, D]; score = query . embedding."""
        table = self.items()
        query = self.hidden(batch, table)
        if self.settings.temperature > 0:
            query = nn.functional.normalize(query, dim=-1) / self.settings.temperature
        return query, self._scored(table)

    def scoring_table(self) -> Tensor:
        """Item embeddings [N + 1, D] as `forward` scores them."""
        return self._scored(self.items())

    def _scored(self, table: Tensor) -> Tensor:
        return nn.functional.normalize(table, dim=-1) if self.settings.temperature > 0 else table
