"""Training losses: softmax over every item, or over a sample of them with the logQ correction.

The sampled form (Bengio and Senecal 2008; Yi et al. 2019) subtracts log Q(j), the log of item j's
expected count in the sample, from each logit, which makes the sampled softmax's gradient
approach the full one's; a negative that equals a row's target is left out of that row.
"""

import torch
from torch import Tensor
from torch.nn import functional


def full_softmax(query: Tensor, table: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over all items but padding. query [T, D], table [N + 1, D], targets [T] from 1."""
    return functional.cross_entropy(query @ table[1:].T, targets - 1, label_smoothing=smoothing)


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
