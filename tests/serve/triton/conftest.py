"""A package whose program gives back what it gets, of every datatype, and each of the clients in turn."""

import pathlib
from collections.abc import Iterator

import pytest
import torch
from torch.export import Dim, export

from tests.serve.conftest import Server, running
from tests.serve.triton.clients import CLIENTS, Client, connected
from tradewind.models import write_package
from tradewind.models.signature import DTYPES


class Same(torch.nn.Module):
    """Gives back what it gets."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": x.clone()}


class Every(torch.nn.Module):
    """The same of every datatype at once; inputs and outputs are named after theirs."""

    def forward(
        self, bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, fp16, bf16, fp32, fp64
    ):
        given = (bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, fp16, bf16, fp32, fp64)
        return {name: value.clone() for name, value in zip(DTYPES.values(), given, strict=True)}


@pytest.fixture(scope="session")
def same(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The package."""
    path = tmp_path_factory.mktemp("models") / "same"
    rows = {0: Dim("rows", min=1)}
    ones = {name: torch.ones(3, 2).to(dtype) for dtype, name in DTYPES.items()}
    programs = {
        "fp32": export(Same(), (ones["FP32"],), dynamic_shapes=(rows,)),
        "int64": export(Same(), (ones["INT64"],), dynamic_shapes=(rows,)),
        "every": export(Every(), tuple(ones.values()), dynamic_shapes=(rows,) * len(ones)),
    }
    write_package(
        path, name="same", task="generic", programs=programs, tensors={}, vocabularies={}, metrics={}, lineage={}, config={}
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def same_server(same: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--slo", "10s", "--grpc-port", "0")
    with running(same, tmp_path_factory.mktemp("home"), *flags) as server:
        yield server


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, same_server: Server) -> Iterator[Client]:
    with connected(request.param, same_server) as client:
        yield client


@pytest.fixture(params=CLIENTS)
def recommend_client(request: pytest.FixtureRequest, recommend_server: Server) -> Iterator[Client]:
    with connected(request.param, recommend_server) as client:
        yield client
