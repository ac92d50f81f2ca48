"""Memory and disk together, in real training processes over real process groups."""

from pathlib import Path

import pytest
import torch

from tests.train import workers
from tradewind.train import checkpoint

SCRIPT = """
import os, signal
from pathlib import Path
import torch, torch.distributed as dist
from tradewind import train
from tradewind.train import checkpoint
from tradewind.train.distributed import Peers

ATTEMPT, SHM = int(os.environ["ATTEMPT"]), Path(os.environ["SHM"])
with train.distributed() as ctx:
    place = {"rank": ctx.rank, "world": 2, "local_rank": ctx.local_rank, "local_world": 2}
    memory = checkpoint.Memory(SHM, **place, generation=ATTEMPT)
    peers = Peers()
    saver = checkpoint.Saver(Path("checkpoints"), memory, peers=Peers(), keep=2)
    weight, done = torch.zeros(600_000), 0
    offered = peers.gather(memory.steps())
    common = sorted(set(offered[0]) & set(offered[1]))
    if common:
        loaded = memory.load(common[-1])
        weight.copy_(loaded.shared["weight"])
        done = loaded.step
        assert loaded.own == {"rank": ctx.rank, "step": done}
        del loaded
    print("from", done, flush=True)
    for step in range(done + 1, 31):
        gradient = torch.full_like(weight, (ctx.rank + 1) * step)
        dist.all_reduce(gradient)
        weight += gradient
        memory.stage(step, {"weight": weight}, {"rank": ctx.rank, "step": step})
        if step % 3 == 0:
            saver.start(step)
        if ATTEMPT == 0 and step == 15 and ctx.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    assert [saved.step for saved in saver.save(30)][-1] == 30
    saver.close()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_from_the_step_before(tmp_path: Path, shm: Path) -> None:
    """One of two workers is killed while a checkpoint is being written; both go on from memory."""
    first = workers.run(tmp_path, 2, script=SCRIPT, SHM=str(shm), ATTEMPT="0")
    assert first[1][0] == -9
    assert first[0][0] != 0
    again = workers.run(tmp_path, 2, script=SCRIPT, SHM=str(shm), ATTEMPT="1")
    assert [code for code, _ in again] == [0, 0], again
    assert {output.split("\n")[0] for _, output in again} == {"from 15"}
    root = tmp_path / "checkpoints"
    newest = checkpoint.latest(root)
    assert newest == root / "step-000000000030"
    for step in checkpoint.steps(root):
        for rank in range(2):
            loaded = checkpoint.load(root / f"step-{step:012d}", rank)
            assert loaded.own == {"rank": rank, "step": step}
            weight = loaded.shared["weight"]
            assert torch.equal(weight, torch.full_like(weight, 3 * step * (step + 1) / 2))
