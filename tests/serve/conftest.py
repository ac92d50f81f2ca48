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

import httpx2
import numpy as np
import pytest
import torch
from torch.export import Dim, ExportedProgram, export

from tests.serve.engine import Engine
from tradewind.models import write_package
from tradewind.models.export import export_ranker

COMMAND = "from tradewind.cli.main import main; main()"
NUM_ITEMS = 40
DIMENSION = 8
POPULAR = [7, 3, 21]
BAD_USER = -1.0
"""The first user feature for which the test's ranker gives NaN."""


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
        bad = torch.where(user_features[:, :1] == BAD_USER, torch.nan, 0.0)
        return retrieval_scores + bad + 0.0 * query.sum(1, keepdim=True) + 0.0 * candidates


class Prerank(torch.nn.Module):
    """The retrieval order turned round, and NaN for the ranker's bad user: nothing else orders like this."""

    def forward(self, query, candidates, retrieval_scores, user_features):
        bad = torch.where(user_features[:, :1] == BAD_USER, torch.nan, 0.0)
        return bad - retrieval_scores + 0.0 * query.sum(1, keepdim=True) + 0.0 * candidates


class Affine(torch.nn.Module):
    def forward(self, x, ids):
        return {"y": x * 2.0 + 1.0, "next": ids + 1}


class Lookup(torch.nn.Module):
    """Fails on an id outside its table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(16, 4)

    def forward(self, ids):
        return self.table(ids)


class Total(torch.nn.Module):
    """Has no batch dimension: one request a run."""

    def forward(self, x):
        return x.sum(), x.isnan().any()


def export_recommender() -> dict[str, ExportedProgram]:
    t = Dim("t", min=1)
    offsets, now = torch.tensor([0, 2, 5]), torch.tensor([2, 3])
    encode = export(
        Encode(),
        (torch.ones(5, dtype=torch.int64), offsets, torch.ones(5, dtype=torch.int64), torch.ones(5), now),
        dynamic_shapes=({0: t}, {0: Dim.AUTO}, {0: t}, {0: t}, {0: Dim.AUTO}),
    )
    return {"encode": encode, "rank": export_ranker(Rank(), DIMENSION, 2)}


def export_generic() -> dict[str, ExportedProgram]:
    b, n = Dim("b", min=1), Dim("n", min=1)
    affine_in, lookup_in = (torch.ones(3, 4), torch.ones(3, dtype=torch.int64)), torch.ones(3, 2)
    return {
        "affine": export(Affine().eval(), affine_in, dynamic_shapes=({0: b}, {0: b})),
        "lookup": export(Lookup().eval(), (lookup_in.long(),), dynamic_shapes=({0: b, 1: n},)),
        "total": export(Total().eval(), (torch.ones(3),), dynamic_shapes=({0: n},)),
    }


@pytest.fixture(scope="session")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A recommender package of 40 items named i1..i40."""
    return write_recommender(tmp_path_factory.mktemp("models") / "recommender", export_recommender())


@pytest.fixture(scope="session")
def preranked(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The same with a pre-ranker."""
    programs = export_recommender() | {"prerank": export_ranker(Prerank(), DIMENSION, 2)}
    return write_recommender(tmp_path_factory.mktemp("models") / "preranked", programs)


def write_recommender(path: pathlib.Path, programs: dict[str, ExportedProgram]) -> pathlib.Path:
    write_package(
        path,
        name="recommender",
        task="recommend",
        programs=programs,
        tensors={"items": {"embedding": Encode().table.detach()}},
        vocabularies={"item": ["", *(f"i{n}" for n in range(1, NUM_ITEMS + 1))]},
        metrics={},
        lineage={},
        config={"max_history": 10, "user_features": ["age", "vip"], "popular": POPULAR},
    )
    return path


@pytest.fixture(scope="session")
def generic(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A generic package: two inputs, an embedding look-up, and a program that cannot batch."""
    path = tmp_path_factory.mktemp("models") / "generic"
    write_package(
        path,
        name="generic",
        task="generic",
        programs=export_generic(),
        tensors={},
        vocabularies={},
        metrics={},
        lineage={},
        config={},
    )
    return path


class Server(NamedTuple):
    """A running server process; `log` is what it wrote to stderr."""

    url: str
    process: subprocess.Popen
    log: pathlib.Path
    grpc: str = ""

    @property
    def address(self) -> str:
        return self.url.partition("://")[2]

    @property
    def workers(self) -> list[int]:
        """Process ids of the model's workers, loaded or loading."""
        pid = self.process.pid
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def lines(self) -> list[dict]:
        """What it logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def running(package: pathlib.Path, home: pathlib.Path, *flags: str, before: str = "pass") -> Iterator[Server]:
    """Serve a package, by folder or reference, on a free port until the block ends; `before` is run in the server's process first."""
    code = f"{before}; {COMMAND}"
    command = [sys.executable, "-c", code, "serve", str(package), "--port", "0", "-o", "json"]
    env = os.environ | {"TRADEWIND_HOME": str(home), "OMP_NUM_THREADS": "1"}
    log = home / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, stderr=stderr, env=env, text=True
        )
    try:
        lines = []
        while line := process.stdout.readline():
            lines.append(line)
            if line.startswith("}"):
                break
        assert lines, log.read_text()
        said = json.loads("".join(lines))
        yield Server(said["url"], process, log, said.get("grpc", ""))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def recommend_server(recommender: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--slo", "5s", "--candidates", "20", "--grpc-port", "0")
    with running(recommender, tmp_path_factory.mktemp("home"), *flags) as server:
        yield server


@pytest.fixture(scope="session")
def generic_server(generic: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The generic package, requests of at most 1 MiB, every request logged."""
    flags = ("--slo", "5s", "--max-request-mib", "1", "--access-log", "all", "--grpc-port", "0")
    with running(generic, tmp_path_factory.mktemp("home"), *flags) as server:
        yield server


@pytest.fixture(scope="session")
def client() -> Iterator[httpx2.Client]:
    """A client that keeps its connections; a new one costs more than a request."""
    with httpx2.Client(trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def engine(generic: pathlib.Path) -> Iterator[Engine]:
    """A dispatcher over real workers of the generic package, in an event loop of its own."""
    with Engine.running(generic) as engine:
        yield engine


@pytest.fixture(scope="session")
def table() -> np.ndarray:
    """The recommender's item embeddings, row 0 unused."""
    return Encode().table.detach().numpy()
