"""Training losses: softmax over every item, or over a sample of them with the logQ correction.

The sampled form (Bengio and Senecal 2008; Yi et al. 2019) subtracts log Q(j), the log of item j's
expected count in the sample, from each logit, which makes the sampled softmax's gradient
approach the full one's; a negative that equals a row's target is left out of that row.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 512
"""Rows of logits held at once: few enough to stay in a core's cache."""


def full_softmax(query: Tensor, table: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over all items but padding. query [T, D], table [N + 1, D], targets [T] from 1."""
    value: Tensor = FullSoftmax.apply(query, table[1:], targets - 1, smoothing)  # type: ignore[no-untyped-call]
    return value


class FullSoftmax(torch.autograd.Function):
    """Cross-entropy and its gradients chunk by chunk, so that the [T, N] logits never exist at once."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        items = table.shape[0]
        total, d_query, d_table = query.new_zeros(()), torch.empty_like(query), torch.zeros_like(table)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            log_p = functional.log_softmax(query[rows] @ table.T, 1)
            own = targets[rows, None]
            total -= (1 - smoothing) * log_p.gather(1, own).sum()
            if smoothing:
                total -= smoothing / items * log_p.sum()
            error = log_p.exp_()
            if smoothing:
                error -= smoothing / items
            error.scatter_add_(1, own, error.new_full((len(own), 1), smoothing - 1))
            d_query[rows] = error @ table
            d_table.addmm_(error.T, query[rows])
        count = max(len(targets), 1)
        ctx.save_for_backward(d_query / count, d_table / count)
        return total / count

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_query, d_table = ctx.saved_tensors
        return grad * d_query, grad * d_table, None, None


def sampled_softmax(
    query: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, log_q: Tensor
) -> Tensor:
    """Mean cross-entropy of each target against shared `negatives` [S] drawn with log expected count `log_q`."""
    positive = (query * table[targets]).sum(1) - log_q[targets]
    logits = query @ table[negatives].T - log_q[negatives]
    logits = logits.masked_fill(targets[:, None] == negatives[None], -torch.inf)
    return (torch.logsumexp(torch.cat([positive[:, None], logits], 1), 1) - positive).mean()


class Sampler:
    """Draws negatives in proportion to count ** power, with replacement."""

    def __init__(self, counts: Tensor, size: int, power: float = 0.75) -> None:
        weights = counts.double().clamp(min=1).pow(power)
        weights[0] = 0.0
        self.weights, self.size = weights, size
        self.log_q = torch.log(size * weights / weights.sum()).float()

    def draw(self) -> Tensor:
        return torch.multinomial(self.weights, self.size, replacement=True)
