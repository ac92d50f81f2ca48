"""State that lies on a real GPU: staged through locked pages, and put back there. Skipped without one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tradewind.train.checkpoint import Memory
from tradewind.train.checkpoint.copying import copy_all
from tradewind.train.random_state import random_state, set_random_state

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="GPUS ARE NOT TESTED: there is none here"
)


def memory_of(folder: Path) -> Memory:
    return Memory(folder, rank=0, world=1, local_rank=0, local_world=1)


def mixed() -> dict[str, Any]:
    """Tensors of both kinds of memory, contiguous and not, of several types and sizes."""
    torch.manual_seed(3)
    return {
        "table": torch.randn(50_000, 64, device="cuda"),
        "turned": torch.randn(300, 700, device="cuda").t(),
        "half": torch.randn(12345, device="cuda").bfloat16(),
        "count": torch.tensor(7, device="cuda"),
        "flags": torch.rand(99, device="cuda") > 0.5,
        "on_cpu": torch.randn(400, 400),
        "small_on_cpu": torch.arange(5),
    }


def check_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name].cpu(), tensor.cpu()), name


def test_what_is_on_a_gpu_is_copied_when_the_copy_returns():
    """Into pages that are locked, where the GPU copies by itself, and others; what is changed afterwards is not seen."""
    for pin in (True, False):
        source = torch.arange(1 << 24, device="cuda")
        target = torch.empty(1 << 24, dtype=torch.int64, pin_memory=pin)
        copy_all([target], [source])
        source.zero_()
        assert torch.equal(target, torch.arange(1 << 24))


def test_state_on_a_gpu_comes_back_bitwise(shm):
    """Step after step into the same slots, whose pages are locked; and to a process that starts anew."""
    memory = memory_of(shm)
    for step in range(1, 6):
        state = mixed() | {"step": step}
        state["table"].mul_(step)
        memory.stage(step, {"model": {k: v for k, v in state.items() if k != "step"}})
    memory.settle()
    assert len(memory._slots) == 2
    assert all(torch.from_numpy(slot.bytes).is_pinned() for slot in memory._slots)
    memory.close()
    again = memory_of(shm)
    expected = mixed()
    expected["table"].mul_(5)
    check_same(again.load(5).shared["model"], expected)
    again.close()


def test_a_slot_can_be_locked_again_after_it_was_let_go(shm):
    """As when a worker stays and its loop begins anew, many times over."""
    for step in range(1, 8):
        memory = memory_of(shm)
        memory.stage(step, {"model": mixed()})
        memory.settle()
        assert any(torch.from_numpy(slot.bytes).is_pinned() for slot in memory._slots)
        memory.close()
    check_same(memory_of(shm).load(7).shared["model"], mixed())


def test_the_gpus_generator_is_part_of_the_random_state():
    """What is drawn on the device after a restore is what was drawn after the state was taken."""
    torch.rand(1, device="cuda")
    state = random_state()
    first = torch.rand(8, device="cuda")
    set_random_state(state)
    assert torch.equal(torch.rand(8, device="cuda"), first)


NCCL = """
import sys, threading
import torch, torch.distributed as dist
from tradewind.train import generation

kept = torch.arange(1 << 20, device="cuda")
for attempt in range(3):
    with generation.connecting():
        meeting = f"file://{sys.argv[1]}/meeting{attempt}"
        dist.init_process_group("nccl", init_method=meeting, rank=0, world_size=1)
    some = torch.full((4,), float(attempt), device="cuda")
    dist.all_reduce(some)
    print(some.tolist()[0], int(kept.sum()) == (1 << 19) * ((1 << 20) - 1))
    aborting = threading.Thread(target=generation.abort)
    aborting.start()
    aborting.join()
    generation.leave()
"""


def test_nccls_group_is_aborted_and_made_anew_in_the_same_process(tmp_path):
    """From another thread, as on the loss of a peer; what lies on the device stays."""
    command = [sys.executable, "-c", NCCL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines() == ["0.0 True", "1.0 True", "2.0 True"], done.stderr
