"""A small package to compile: a network, and a jagged program whose offsets are one longer than its rows."""

import pathlib

import torch
from torch.export import Dim

from tradewind.models import Package, write_package
from tradewind.models.export import export_dynamic

WIDTH, ROWS = 16, 1 << 20


class Score(torch.nn.Module):
    """A network, and which of its scores are positive."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = torch.nn.Sequential(torch.nn.Linear(WIDTH, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))

    def forward(self, x):
        scores = self.net(x).log_softmax(1)
        return {"scores": scores, "likely": scores > -1.0}


class Pool(torch.nn.Module):
    """Sums of rows of a table, jagged; fails on an id outside the table."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(torch.randn(50, WIDTH, generator=generator))

    def forward(self, values, offsets, scale):
        row = torch.searchsorted(offsets, torch.arange(values.shape[0]), right=True) - 1
        rows = torch.nn.functional.embedding(values, self.table)
        return torch.zeros(scale.shape[0], WIDTH).index_add(0, row, rows) * scale[:, None]


def write_small(folder: pathlib.Path, seed: int = 0) -> Package:
    """Write it; `seed` changes the weights and nothing else."""
    b, t = Dim("b", min=1, max=ROWS), Dim("t", min=1, max=ROWS)
    jagged = (torch.ones(5, dtype=torch.int64), torch.tensor([0, 2, 4, 5]), torch.ones(3))
    programs = {
        "score": export_dynamic(Score(seed), (torch.ones(3, WIDTH),), ({0: b},)),
        "pool": export_dynamic(Pool(seed), jagged, ({0: t}, {0: b + 1}, {0: b})),
    }
    write_package(
        folder, name="small", task="generic", programs=programs,
        tensors={}, vocabularies={}, metrics={}, lineage={}, config={},
    )  # fmt: skip
    from tradewind.models import open_package

    return open_package(folder)
