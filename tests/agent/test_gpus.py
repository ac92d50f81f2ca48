"""Losing workers whose state lies on a real GPU, which they share. Skipped without one."""

import re

import pytest
import torch

from tests.agent import training
from tests.agent.test_supervise import check_exactly_once, check_kept

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="GPUS ARE NOT TESTED: there is none here"),
]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """An undisturbed run of two workers."""
    found = training.run(tmp_path_factory.mktemp("calm"), 2, DEVICE="cuda:0")
    assert found.code == 0, found.output
    return found


def check_recovered(found, calm, rank):
    """The other worker kept its process, and nothing can be told from the result."""
    assert found.code == 0, found.output
    assert found.pids(0)[rank] != found.pids(1)[rank]
    check_kept(found, 1 - rank, attempts=2)
    assert {event.data["tier"] for event in found.of("resume")} == {"memory"}
    assert found.weights == calm.weights
    check_exactly_once(found)
    assert len(found.of("recovered")) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_replaced_and_the_other_keeps_its_device(rank, tmp_path, calm):
    """Bitwise the same weights; the one that stays has let go of all that it held on the device."""
    found = training.run(tmp_path, 2, PLAN=f"KILL=13/{rank}", DEVICE="cuda:0")
    check_recovered(found, calm, rank)
    assert [event.data["class"] for event in found.of("failure")] == ["killed"]
    logs = "".join(path.read_text() for path in sorted((tmp_path / "home").rglob("*.log")))
    held = [int(mib) for mib in re.findall(r"on cuda:0 held before: (\d+) MiB", logs)]
    assert len(held) == 4
    assert max(held) < 128  # cuBLAS keeps its workspace; the script had 256 MiB more


def test_a_worker_that_lost_its_device_is_replaced(tmp_path, calm):
    """A read outside a tensor breaks the context of that process, which is of no more use; not the other's."""
    found = training.run(tmp_path, 2, PLAN="OUTSIDE=13/1", DEVICE="cuda:0")
    check_recovered(found, calm, 1)
    (failure,) = found.of("failure")
    assert failure.rank == 1
    assert "device-side assert" in failure.data["exception"]


def test_memory_of_the_device_that_runs_out_is_called_that(tmp_path, calm):
    """And the run goes on from the step before."""
    found = training.run(tmp_path, 2, PLAN="LARGE=13/0", DEVICE="cuda:0")
    check_recovered(found, calm, 0)
    (failure,) = found.of("failure")
    assert failure.data["exception"].startswith("torch.OutOfMemoryError: CUDA out of memory")


def test_a_stopped_worker_on_a_gpu_is_named_and_replaced(tmp_path, calm):
    """SIGSTOP of one rank is a hang of that rank; its process is killed, and what it held on the device comes free."""
    found = training.run(tmp_path, 2, PLAN="STOP=20/1", DEVICE="cuda:0")
    assert found.code == 0, found.output
    (hang,) = found.of("hang")
    assert (hang.data["ranks"], hang.data["evidence"]) == ([1], "stopped")
    assert found.weights == calm.weights
    check_exactly_once(found)
