"""What every sequence model offers: a query a token, and item embeddings to score it against."""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.recommender.jagged import Jagged
from recipes.recommender.models.seen import Seen


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
    gap: bool = False
    """A token knows how long after it its next event happens."""
    calendar: int = 0
    """A token knows in which of this many equal parts of `calendar_span_s` its next event happens; 0: it does not."""
    calendar_span_s: tuple[int, int] = (0, 1)
    """First and last second of the training events."""
    seen: int = 0
    """Width of the random codes by which scores go down for what the history holds; 0 for none."""


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
    """Base: `hidden` is the model proper; scoring (dot product or scaled cosine, and what was seen) is shared."""

    def __init__(self, num_items: int, settings: Settings, item_features: Tensor | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.items = ItemEmbedding(num_items, settings, item_features)
        self.seen = Seen(num_items, settings.seen, settings.dropout) if settings.seen else None

    def hidden(self, batch: Jagged, table: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, batch: Jagged) -> tuple[Tensor, Tensor]:
        """Queries [T, D'], one a token, and item embeddings [N + 1, D']; score = query . embedding."""
        table = self.items()
        query = self.hidden(batch, table)
        if self.settings.temperature > 0:
            query = functional.normalize(query, dim=-1) / self.settings.temperature
        if self.seen is not None:
            query = torch.cat([query, self.seen(batch)], 1)
        return query, self._scored(table)

    def scoring_table(self) -> Tensor:
        """Item embeddings [N + 1, D'] as `forward` scores them; D' is wider than D by the seen codes."""
        return self._scored(self.items())

    def _scored(self, table: Tensor) -> Tensor:
        table = functional.normalize(table, dim=-1) if self.settings.temperature > 0 else table
        return table if self.seen is None else torch.cat([table, self.seen.codes], 1)
