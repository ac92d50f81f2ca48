"""Random inputs for a program of which only the signature is known."""

from collections.abc import Callable, Mapping

import torch

Tensors = dict[str, torch.Tensor]
WHOLE = (1000, 100, 10, 2)
"""Integers are drawn under these, the first for which the program does not fail: it may look them up in a table."""


def randomly(run: Callable[[Tensors], object], like: Mapping[str, torch.Tensor], seed: int = 0) -> bool:
    """Run a program once on random values of these shapes and types; say whether any were to its liking."""
    generator = torch.Generator().manual_seed(seed)
    for under in WHOLE:
        try:
            run({name: _random(tensor, under, generator) for name, tensor in like.items()})
        except (RuntimeError, IndexError, ValueError):
            continue
        return True
    return False


def _random(like: torch.Tensor, under: int, generator: torch.Generator) -> torch.Tensor:
    if like.is_floating_point():
        return torch.randn(like.shape, generator=generator).to(like.dtype)
    high = 2 if like.dtype is torch.bool else min(under, 100) if like.element_size() == 1 else under
    return torch.randint(0, high, like.shape, generator=generator).to(like.dtype)
