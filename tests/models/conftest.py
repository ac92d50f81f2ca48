"""A small two-program package, built once."""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.export import Dim, ExportedProgram, export

from tradewind import models
from tradewind.models.graph import normalize


class Encode(torch.nn.Module):
    """Mean of item embeddings per history, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.items = torch.nn.Embedding(21, 8)
        self.out = torch.nn.Linear(8, 8)

    def forward(self, values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            pooled = torch.cumsum(self.items(values), dim=0)
            pooled = torch.cat([torch.zeros(1, 8), pooled])
            ends, starts = offsets[1:], offsets[:-1]
            mean = (pooled[ends] - pooled[starts]) / (ends - starts).unsqueeze(1).to(pooled.dtype)
            return self.out(mean) * torch.tensor(0.5)


class Rank(torch.nn.Module):
    """Scores of candidates, with an item table tied to nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.items = torch.nn.Embedding(21, 8)

    def forward(self, query: torch.Tensor, candidates: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": torch.einsum("bd,bkd->bk", query, self.items(candidates))}


def export_encode(module: torch.nn.Module) -> ExportedProgram:
    inputs = (torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 2, 3, 5]))
    # Size-oblivious, or export refuses a program that also takes a batch of one.
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):
        return export(module, inputs, dynamic_shapes=({0: Dim("T", min=1)}, {0: Dim("B1", min=2)}))


def export_rank(module: torch.nn.Module) -> ExportedProgram:
    batch = Dim("B", min=1)
    shapes = {"query": {0: batch}, "candidates": {0: batch, 1: Dim("K", min=1)}}
    return export(module, (torch.rand(3, 8), torch.ones(3, 5, dtype=torch.int64)), dynamic_shapes=shapes)


@pytest.fixture(scope="session")
def modules() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {"encode": Encode().eval(), "rank": Rank().eval()}


@pytest.fixture(scope="session")
def exported(modules: dict[str, torch.nn.Module]) -> dict[str, ExportedProgram]:
    programs = {"encode": export_encode(modules["encode"]), "rank": export_rank(modules["rank"])}
    return {name: normalize(program) for name, program in programs.items()}


@pytest.fixture
def write(tmp_path: pathlib.Path, exported: dict[str, ExportedProgram]) -> Callable[..., models.Package]:
    """Write the small package under a new name each time, with some fields changed."""
    count = iter(range(1000))

    def write(**changed: Any) -> models.Package:
        fields: dict[str, Any] = {
            "name": "small",
            "task": "recommend",
            "programs": exported,
            "tensors": {"items": {"embedding": torch.arange(168.0).reshape(21, 8)}},
            "vocabularies": {"item": ["", *(f"item {i}" for i in range(1, 21))]},
            "metrics": {"ndcg@10": 0.1},
            "lineage": {"run": "r1"},
            "config": {"dimension": 8, "retrieve_k": 5},
        }
        return models.write_package(tmp_path / f"package{next(count)}", **(fields | changed))

    return write
