"""What every contender trains: a tiny model, and a fixed amount of arithmetic that makes a step about 50 ms.

The arithmetic is counted in matrix products and not in time: every contender does the same work, and a
busy machine makes steps longer instead of doing less. `calibrate` finds the count on this machine.
"""

import os
import sys
import time

import torch
from torch import nn

from bench.peers.training.task_environment import DEVICE, WORK

SAMPLES, BATCH = 4096, 32
"""Samples in the data, and in a step of both workers together."""
_SIZE = 256
_WIDTH = 128


def work_of_environment() -> int:
    return int(os.environ[WORK])


def device() -> torch.device:
    return torch.device(os.environ.get(DEVICE, "cpu"))


def make_model() -> nn.Module:
    """The same weights on every rank and in every attempt."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(_WIDTH, 2 * _WIDTH), nn.ReLU(), nn.Linear(2 * _WIDTH, _WIDTH)).to(device())


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def make_data() -> torch.Tensor:
    return torch.randn(SAMPLES, _WIDTH, generator=torch.Generator().manual_seed(1)).to(device())


def rows_of(step: int, rank: int, world: int) -> slice:
    """This rank's part of a step's batch, for a loop that keeps no cursor of its data."""
    start = step * BATCH % SAMPLES + rank * BATCH // world
    return slice(start, start + BATCH // world)


def loss_of(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = (model(batch) - batch).square().mean()
    return loss


class Work:
    """A fixed number of matrix products, on one thread."""

    def __init__(self, products: int) -> None:
        self.products = products
        self._a = torch.randn(_SIZE, _SIZE)
        self._out = torch.empty(_SIZE, _SIZE)

    def __call__(self) -> None:
        for _ in range(self.products):
            torch.mm(self._a, self._a, out=self._out)


def calibrate(target_s: float) -> int:
    """Matrix products that take `target_s` when nothing else runs: by the fastest of many short trials."""
    torch.set_num_threads(1)
    trial, fastest_s = Work(8), float("inf")
    for _ in range(200):
        started = time.perf_counter()
        trial()
        fastest_s = min(fastest_s, time.perf_counter() - started)
    return max(1, round(trial.products * target_s / fastest_s))


if __name__ == "__main__":
    print(calibrate(float(sys.argv[1])))
