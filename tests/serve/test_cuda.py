"""A real GPU as a device. Skipped without one."""

import subprocess
import sys

import httpx2
import pytest
import torch

from tests.serve.conftest import running
from tests.serve.test_metrics import BODY, scrape
from tradewind.models import open_package
from tradewind.serve.cuda import Cuda
from tradewind.serve.device import OnDevice
from tradewind.serve.runners import programs_on, runners_of

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="GPUS ARE NOT TESTED: there is none here"
)
OUTSIDE = """
import torch
from tradewind.serve.lost import is_lost

table, where = torch.zeros(4, device="cuda"), torch.tensor([1 << 40], device="cuda")
try:
    print(float(table[where].sum()))
except RuntimeError as error:
    print(is_lost(error))
"""


@pytest.fixture(scope="module")
def device() -> Cuda:
    return Cuda("cuda:0")


def test_a_package_answers_as_on_the_cpu(generic, recommender):
    """At every batch size, those that are filled up too; what is batched runs as graphs."""
    for folder, name in ((generic, "affine"), (recommender, "recommend")):
        package = open_package(folder)
        on_cpu = runners_of(package, 8, 20, "exact")[name]
        on_gpu = runners_of(package, 8, 20, "exact", programs=programs_on(Cuda("cuda:0"), package, 8))[name]
        on_gpu.describe(lambda: 0.0, 1)
        for rows in range(1, 9):
            inputs = on_cpu._sample(rows)
            found, expected = on_gpu.run(inputs), on_cpu.run(inputs)
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value)


def test_batches_of_all_sizes_are_replayed(device):
    """One graph for each of 1, 2, 4 and 8 rows; pinned results; the same as eagerly."""
    weight = torch.randn(16, 4, device="cuda")
    program = OnDevice("multiply", lambda x: x @ weight, device, max_rows=8)
    for rows in (*range(1, 9), 3, 8, 1):
        x = torch.randn(rows, 16)
        found = program(x)
        assert found.is_pinned()
        torch.testing.assert_close(found, (x.cuda() @ weight).cpu())
    assert program.graphs == 4


def test_a_program_that_asks_the_cpu_is_not_captured(device):
    """It reads a value back in between; it goes on eagerly, and the device with it."""
    program = OnDevice("asks", lambda x: x * x.sum().item(), device, max_rows=2)
    for _ in range(3):
        assert program(torch.tensor([[1.0], [2.0]])).tolist() == [[3.0], [6.0]]
    assert program.graphs == 0


def test_out_of_memory_fails_one_batch(device):
    """The next one is answered."""

    def program(x: torch.Tensor) -> torch.Tensor:
        return x + torch.empty(1 << 44 if x[0] < 0 else 1, device="cuda").sum() * 0.0

    on_device = OnDevice("large", program, device)
    with pytest.raises(torch.OutOfMemoryError):
        on_device(torch.tensor([-1.0]))
    assert on_device(torch.tensor([1.0])).shape == (1,)


def test_a_read_outside_a_table_loses_the_device():
    """In a process of its own, which is of no more use after that."""
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "True\n", done.stderr


def test_a_server_on_a_gpu_answers_as_one_on_the_cpu(
    generic, generic_server, tmp_path, client: httpx2.Client
):
    """And says where its workers run."""
    with running(generic, tmp_path, "--slo", "5s", "--device", "cuda") as server:
        answers = [
            client.post(url + "/v2/models/lookup/infer", json=BODY).json()["outputs"]
            for url in (server.url, generic_server.url)
        ]
        assert answers[0] == answers[1]
        shown = scrape(client, server.url)
        assert next(value for key, value in shown.items() if key[0] == "DCGM_FI_DEV_FB_USED") > 0
        placed = [dict(key[1:]) for key in shown if key[0] == "tradewind_workers_placed"]
        assert {place["device"] for place in placed} == {"cuda:0"}
