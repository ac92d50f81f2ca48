"""A small package, compiled once: a network, its twin, and a jagged program whose offsets are one longer than its rows.

The processes that build it are those that users run. Skipped, saying so, where there is no C++ compiler.
"""

import os
import pathlib
import shutil
import subprocess
from typing import NamedTuple

import msgspec
import pytest
import torch
from torch.export import Dim

from tradewind.models import Package, building, open_package, write_package
from tradewind.models.artefacts import LIBRARY, Artefact, Artefacts, key_of
from tradewind.models.building import Built
from tradewind.models.export import export_dynamic
from tradewind.models.manifest import digest_of
from tradewind.names import MANIFEST

WIDTH, ROWS = 16, 1 << 20


class Score(torch.nn.Module):
    """A network, and which of its scores are positive."""

    def __init__(self, seed: int = 0, sign: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.sign = sign
        self.net = torch.nn.Sequential(torch.nn.Linear(WIDTH, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))

    def forward(self, x):
        scores = self.sign * self.net(x).log_softmax(1)
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
        "twin": export_dynamic(Score(seed, -1.0), (torch.ones(3, WIDTH),), ({0: b},)),
        "pool": export_dynamic(Pool(seed), jagged, ({0: t}, {0: b + 1}, {0: b})),
    }
    write_package(
        folder, name="small", task="generic", programs=programs,
        tensors={}, vocabularies={}, metrics={}, lineage={}, config={},
    )  # fmt: skip
    return open_package(folder)


class Compiled(NamedTuple):
    """The small package, and the home where it is compiled."""

    package: Package
    home: pathlib.Path

    @property
    def artefacts(self) -> Artefacts:
        return Artefacts(self.home / "compiled")

    def key(self, program: str) -> str:
        return key_of(self.package, self.package.program(program))

    def library(self, program: str) -> pathlib.Path:
        return self.artefacts.folder / self.key(program) / LIBRARY

    def forge(self, program: str, library: bytes) -> None:
        """Put other code in a program's place, and a manifest that fits it: as whoever owns the folder could."""
        folder = self.library(program).parent
        artefact = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Artefact)
        file = digest_of(library)
        forged = msgspec.structs.replace(artefact, sha256=file.sha256, size=file.size)
        (folder / LIBRARY).unlink()
        (folder / LIBRARY).write_bytes(library)
        (folder / MANIFEST).write_bytes(msgspec.json.encode(forged))


def build(home: pathlib.Path, package: pathlib.Path, **env: str) -> list[Built]:
    """What the process that compiles says of each program."""
    done = subprocess.run(
        building.command(str(package)),
        env=building.environment() | {"TRADEWIND_HOME": str(home)} | env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return [msgspec.json.decode(line, type=Built) for line in done.stdout.splitlines()]


def need_compiler() -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("COMPILED PROGRAMS ARE NOT TESTED: no C++ compiler (apt install g++)")


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Compiled for the whole session; not to be changed."""
    need_compiler()
    folder = tmp_path_factory.mktemp("compiled")
    package = write_small(folder / "small")
    built = build(folder / "home", folder / "small")
    assert [(b.program, b.built, b.error) for b in built] == [
        (p, True, "") for p in ("pool", "score", "twin")
    ]
    return Compiled(package, folder / "home")


@pytest.fixture
def compiled(compiled_once: Compiled, tmp_path: pathlib.Path) -> Compiled:
    """A copy of it that a test may change."""
    shutil.copytree(
        compiled_once.home, tmp_path / "home", ignore=shutil.ignore_patterns("inductor", "*.lock")
    )
    return Compiled(compiled_once.package, tmp_path / "home")
