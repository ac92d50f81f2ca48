import pytest
import torch
from torch.nn import functional

from recipes.recommender import loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tokens", [1, loss.CHUNK, loss.CHUNK + 7])
def test_chunked_softmax_is_cross_entropy(tokens, smoothing):
    """Value and both gradients are torch's cross-entropy's over all items but padding, whatever the chunks."""
    torch.manual_seed(0)
    query = torch.randn(tokens, 8, dtype=torch.double, requires_grad=True)
    table = torch.randn(30, 8, dtype=torch.double, requires_grad=True)
    targets = torch.randint(1, 30, (tokens,))
    ours = loss.full_softmax(query, table, targets, smoothing)
    theirs = functional.cross_entropy(query @ table[1:].T, targets - 1, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    for got, want in zip(
        torch.autograd.grad(3 * ours, (query, table)),
        torch.autograd.grad(3 * theirs, (query, table)),
        strict=True,
    ):
        torch.testing.assert_close(got, want)
