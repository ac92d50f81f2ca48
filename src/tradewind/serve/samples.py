"""Inputs for a program of which only the signature is known: to warm it up, to measure it, to compare it."""

import re
from collections.abc import Callable, Sequence

import torch

from tradewind.serve.tensors import DTYPES
from tradewind.serve.wire import Port

Tensors = dict[str, torch.Tensor]
SAMPLE_DIMENSION = 8
WHOLE = (1000, 100, 10, 2)
"""Integers are drawn under these, the first for which the program does not fail: it may look them up in a table."""
_SUM = re.compile(r"(\w+) ([+-]) (\d+)", re.ASCII)


def zeros(ports: Sequence[Port], batch_symbol: str | None, rows: int) -> Tensors:
    """Return zeros of sizes that go together, `rows` for the batch symbol; offsets that share out what there is."""
    sizes = {} if batch_symbol is None else {batch_symbol: rows}
    sample = {port.name: torch.zeros(_shape(port, sizes), dtype=DTYPES[port.dtype]) for port in ports}
    for port in ports:
        if _is_offsets(port):
            others = [len(t) for name, t in sample.items() if name != port.name and t.ndim]
            sample[port.name] = torch.linspace(0, max(others, default=0), len(sample[port.name])).long()
    return sample


def randomly(
    run: Callable[[Tensors], object],
    ports: Sequence[Port],
    like: Tensors,
    generator: torch.Generator | None = None,
) -> bool:
    """Run a program once on random values of these shapes; say whether any were to its liking. Offsets stay."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    drawn = [port.name for port in ports if not _is_offsets(port)]
    for under in WHOLE:
        try:
            run(like | {name: _random(like[name], under, generator) for name in drawn})
        except (RuntimeError, IndexError, ValueError):
            continue
        return True
    return False


def _is_offsets(port: Port) -> bool:
    """Whether it says where each row's values begin: integers, one more than there are rows."""
    return (
        port.dtype == "INT64"
        and len(port.shape) == 1
        and bool(port.symbols)
        and _plus(port.symbols[0])[1] == 1
    )


def _shape(port: Port, sizes: dict[str, int]) -> list[int]:
    ranges = port.range or tuple((0, None) for _ in port.shape)
    symbols = port.symbols or tuple(None for _ in port.shape)
    shape = []
    for size, symbol, (low, high) in zip(port.shape, symbols, ranges, strict=True):
        base, offset = _plus(symbol)
        free = max(low, min(SAMPLE_DIMENSION + offset, high or SAMPLE_DIMENSION + offset))
        free = free if base is None else sizes.setdefault(base, free - offset) + offset
        shape.append(size if size >= 0 else free)
    return shape


def _plus(symbol: str | None) -> tuple[str | None, int]:
    """`s + 1` is what `s` is, and one more."""
    match = _SUM.fullmatch(symbol or "")
    return (symbol, 0) if match is None else (match[1], int(match[3]) * (1 if match[2] == "+" else -1))


def _random(like: torch.Tensor, under: int, generator: torch.Generator) -> torch.Tensor:
    if like.is_floating_point():
        return torch.randn(like.shape, generator=generator).to(like.dtype)
    high = 2 if like.dtype is torch.bool else min(under, 100) if like.element_size() == 1 else under
    return torch.randint(0, high, like.shape, generator=generator).to(like.dtype)
