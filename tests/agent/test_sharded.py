"""Losing one of two workers whose model is sharded by FSDP2, while its checkpoints are written in the background."""

from pathlib import Path

import pytest

from tests.agent import training
from tradewind.train import checkpoint

pytestmark = pytest.mark.slow

SCRIPT = """
import os, signal
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from safetensors.torch import save_file
from tradewind import train

OUT, KILL = os.environ["OUT"], os.environ.get("KILL")
with train.distributed() as ctx:
    train.seed_everything(7)
    features = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.Linear(8, 17), nn.Tanh(), nn.Dropout(0.3), nn.Linear(17, 1))
    for layer in (model[0], model[3], model):
        fully_shard(layer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = train.Batches(96, 12, seed=3, epochs=3)
    loop = train.Loop(model=model, optimizer=optimizer, data=batches, every_steps=4, keep=9, max_recompute=1)
    if loop.step == 0:
        torch.manual_seed(11 + ctx.rank)
    for indices in loop:
        if KILL == f"{loop.step + 1}/{ctx.rank}" and not os.path.exists(f"{OUT}/killed"):
            open(f"{OUT}/killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        loss = (model(features[indices]) - features[indices].sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = model.state_dict() | {
        f"{index}.{key}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for key, value in moments.items()
    }
    whole = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state.items()}
    if ctx.rank == 0:
        save_file(whole, f"{OUT}/final.safetensors")
"""


def test_a_killed_worker_of_a_sharded_model_is_replaced(tmp_path: Path) -> None:
    """After kill -9 the other keeps its process, both go on from memory, and weights and moments agree bitwise."""
    calm = training.run(tmp_path / "calm", 2, SCRIPT)
    assert calm.code == 0, calm.output
    found = training.run(tmp_path / "killed", 2, SCRIPT, KILL="14/1")
    assert found.code == 0, found.output
    assert found.pids(0)[1] != found.pids(1)[1]
    told = [event for event in found.of("worker_exit") if event.rank == 0 and event.data["told"]]
    assert (found.pids(0)[0] == found.pids(1)[0]) is (not told)
    assert {(event.data["tier"], event.data["step"]) for event in found.of("resume")} <= {
        ("memory", 12),
        ("memory", 13),
    }
    assert len(found.of("resume")) == 2
    assert found.weights == calm.weights
    root = Path(found.run.dir) / "checkpoints"
    assert checkpoint.steps(root)[-1] == 24
    assert len(checkpoint.steps(root)) > 1
    for step in checkpoint.steps(root):
        checkpoint.verify(root / f"step-{step:012d}")
    assert not found.of("warning")
