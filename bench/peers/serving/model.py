"""The models that every server serves; numpy and torch only, so that each can import this file.

- `spin`: a Python model that holds the GIL: 4 ms a batch and 0.7 ms a row of it, by the clock. It needs no arithmetic,
  so its ceiling is known: 64 rows in 48.8 ms, 1,311 a second.
- `ranker`: scores of 64 candidates by a perceptron over 128 features, 1024 and 640 wide, in torch on one thread.
- `light`: the same with one hidden layer of 128: a model so quick that what surrounds it is most of a request.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
BASE_S, ROW_S = 0.004, 0.0007
MAX_BATCH = 64
TURNS = 5
WIDTHS = {"ranker": (128, 1024, 640, 1), "light": (128, 128, 1)}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Shapes of one request's row, without the batch."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


SHAPES = {"spin": Shape((4,), (1,)), "ranker": Shape((64, 128), (64,)), "light": Shape((64, 128), (64,))}


def spin(x: Array) -> Array:
    """Hold the GIL for as long as a batch of this many rows takes: float32[B, 4] to float32[B, 1]."""
    end = time.perf_counter() + BASE_S + ROW_S * len(x)
    while time.perf_counter() < end:
        pass
    return x.sum(1, keepdims=True)


def network(name: str) -> Any:
    """The perceptron as a torch module: float32[B, 64, 128] to float32[B, 64]."""
    import torch

    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    widths = WIDTHS[name]
    for wide, narrow in itertools.pairwise(widths):
        layers += [torch.nn.Linear(wide, narrow), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1], torch.nn.Flatten(-2)).eval()


def model(name: str, threads: int = 1) -> Callable[[Array], Array]:
    """A function of a batch."""
    if name == "spin":
        return spin
    import torch

    torch.set_num_threads(threads)
    module = network(name)

    def run(x: Array) -> Array:
        with torch.inference_mode():
            scores: Array = module(torch.from_numpy(x)).numpy()
        return scores

    return run


def row(name: str) -> Array:
    """One request's input, float32[1, ...]."""
    return np.random.default_rng(0).standard_normal((1, *SHAPES[name].inputs)).astype(np.float32)


def ceiling(name: str, seconds: float = 1.0) -> float:
    """The most requests a second that one process can compute, at the batch size that is best for it.

    The sizes take turns, and the median of its turns speaks for each: the most of single measurements is what the machine
    did in its best moment.
    """
    if name == "spin":
        return MAX_BATCH / (BASE_S + ROW_S * MAX_BATCH)
    run = model(name)
    batches = {size: np.repeat(row(name), size, axis=0) for size in (1, 2, 4, 8, 16, 32, 64)}
    rates: dict[int, list[float]] = {size: [] for size in batches}
    for batch in batches.values():
        run(batch)
    for _ in range(TURNS):
        for size, batch in batches.items():
            count, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < seconds / TURNS / len(batches):
                run(batch)
                count += 1
            rates[size].append(size * count / spent)
    return max(map(statistics.median, rates.values()))
