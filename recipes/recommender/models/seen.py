"""What a query holds against its own history: random codes, so that an item seen before can be scored down.

Each item has a fixed random unit vector, its code; a query carries the sum of its history's codes
and the item table the codes themselves. Their product is 1 for an item of the history and noise
of about sqrt(events / width) for another (a random projection of the set, as in Charikar et al.
2002, "Finding Frequent Items in Data Streams"). One weight, learned, says how much that counts
against an item: positive where people do not come back, negative where they do. A score remains
one dot product, so retrieval needs no list of what was seen. Learned codes were tried and overfit.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.recommender.jagged import Jagged

SEED = 20_240
SCALE = 8.0
"""Multiplies the learned weight, so that it finds its place in hundreds of steps instead of thousands."""


def random_codes(count: int, width: int) -> Tensor:
    """Unit vectors [count, width], the same in every process; row 0, the unknown item, is zero."""
    codes = torch.randn(count, width, generator=torch.Generator().manual_seed(SEED)) / math.sqrt(width)
    codes = functional.normalize(codes, dim=1)
    codes[0] = 0.0
    return codes


class Seen(nn.Module):
    """`codes` [N + 1, W] belong beside the item table, `forward` beside the queries."""

    codes: Tensor

    def __init__(self, num_items: int, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("codes", random_codes(num_items, width))
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Jagged) -> Tensor:
        """Minus the weighted sum of the codes of every event up to each token [T, W]."""
        codes = functional.embedding(batch.values, self.codes)
        held = [codes[index].cumsum(1).flatten(0, 1) for index in batch.layout.groups]
        return self.dropout(torch.cat(held)[batch.layout.where]) * (-SCALE * self.weight)
