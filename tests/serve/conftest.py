"""A tiny recommender and a tiny generic package, each behind a real server process on loopback."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tradewind.models import write_package

COMMAND = "from tradewind.cli.main import main; main()"
NUM_ITEMS = 40
DIMENSION = 8


class Encode(torch.nn.Module):
    """Mean of the history's item embeddings: jagged, so exact per user whatever the batch."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(NUM_ITEMS + 1, DIMENSION, generator=generator))

    def forward(self, values, offsets, timestamps, ratings, now):
        batch = offsets.shape[0] - 1
        row = torch.searchsorted(offsets, torch.arange(values.shape[0]), right=True) - 1
        total = torch.zeros(batch, DIMENSION).index_add(0, row, self.table[values])
        return total / (offsets[1:] - offsets[:-1]).unsqueeze(1)


class Rank(torch.nn.Module):
    """Keep the retrieval order: what the test computes by hand is what must come out."""

    def forward(self, query, candidates, retrieval_scores, user_features):
        return retrieval_scores + 0.0 * query.sum(1, keepdim=True) + 0.0 * candidates


class Affine(torch.nn.Module):
    def forward(self, x, ids):
        return {"y": x * 2.0 + 1.0, "next": ids + 1}


class Lookup(torch.nn.Module):
    """Fails on an id outside its table, and ends the process on 13 (see the worker's fault test)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(16, 4)

    def forward(self, ids):
        return self.table(ids)


def export_recommender() -> dict[str, torch.export.ExportedProgram]:
    t, b, k = (torch.export.Dim(n, min=1) for n in ("t", "b", "k"))
    b1 = torch.export.Dim("b1", min=2)
    length = torch.tensor([2, 3])
    offsets = torch.tensor([0, 2, 5])
    encode = torch.export.export(
        Encode(),
        (torch.ones(5, dtype=torch.int64), offsets, torch.ones(5, dtype=torch.int64), torch.ones(5), length),
        dynamic_shapes=({0: t}, {0: torch.export.Dim.AUTO}, {0: t}, {0: t}, {0: torch.export.Dim.AUTO}),
    )
    del b1
    rank = torch.export.export(
        Rank(),
        (torch.ones(3, DIMENSION), torch.ones(3, 5, dtype=torch.int64), torch.ones(3, 5), torch.ones(3, 2)),
        dynamic_shapes=({0: b}, {0: b, 1: k}, {0: b, 1: k}, {0: b}),
    )
    return {"encode": encode, "rank": rank}


@pytest.fixture(scope="session")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A recommender package of 40 items named i1..i40."""
    programs = export_recommender()
    path = tmp_path_factory.mktemp("models") / "recommender"
    write_package(
        path,
        name="recommender",
        task="recommend",
        programs=programs,
        tensors={"items": {"embedding": Encode().table.detach()}},
        vocabularies={"item": ["", *(f"i{n}" for n in range(1, NUM_ITEMS + 1))]},
        metrics={},
        lineage={},
        config={"max_history": 10, "retrieve_k": 20, "dimension": DIMENSION, "user_features": ["age", "vip"]},
    )
    return path


@pytest.fixture(scope="session")
def generic(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A generic package with a two-input program and an embedding look-up."""
    b = torch.export.Dim("b", min=1)
    n = torch.export.Dim("n", min=1)
    affine = torch.export.export(
        Affine().eval(), (torch.ones(3, 4), torch.ones(3, dtype=torch.int64)), dynamic_shapes=({0: b}, {0: b})
    )
    lookup = torch.export.export(
        Lookup().eval(), (torch.ones(3, 2, dtype=torch.int64),), dynamic_shapes=({0: b, 1: n},)
    )
    path = tmp_path_factory.mktemp("models") / "generic"
    write_package(
        path,
        name="generic",
        task="generic",
        programs={"affine": affine, "lookup": lookup},
        tensors={},
        vocabularies={},
        metrics={},
        lineage={},
        config={},
    )
    return path


class Server(NamedTuple):
    """A running server process."""

    url: str
    process: subprocess.Popen

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def running(package: pathlib.Path, home: pathlib.Path, *flags: str) -> Iterator[Server]:
    """Serve `package` on a free port until the block ends."""
    command = [sys.executable, "-c", COMMAND, "serve", str(package), "--port", "0", "-o", "json"]
    env = os.environ | {"TRADEWIND_HOME": str(home), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, env=env, text=True)
    try:
        lines = []
        while line := process.stdout.readline():
            lines.append(line)
            if line.startswith("}"):
                break
        yield Server(json.loads("".join(lines))["url"], process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def recommend_server(recommender: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(recommender, tmp_path_factory.mktemp("home"), "--slo", "5s", "--candidates", "20") as server:
        yield server


@pytest.fixture(scope="session")
def generic_server(generic: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(generic, tmp_path_factory.mktemp("home"), "--slo", "5s") as server:
        yield server


@pytest.fixture(scope="session")
def small_server(generic: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The generic package with a request limit of 1 MiB."""
    flags = ("--slo", "5s", "--max-request-mib", "1")
    with running(generic, tmp_path_factory.mktemp("home"), *flags) as server:
        yield server


@pytest.fixture(scope="session")
def table() -> np.ndarray:
    """The recommender's item embeddings, row 0 unused."""
    return Encode().table.detach().numpy()
