"""Start real training processes with the environment that torchrun gives its workers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tradewind import names

SCRIPT = """
import os, sys, signal, time
import numpy as np, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from safetensors.torch import save_file
from tradewind import train

KILL_AT, KILL_RANK = int(os.environ.get("KILL_AT", "0")), int(os.environ.get("KILL_RANK", "0"))
SIGNAL = int(os.environ.get("SIGNAL", "9"))
with train.distributed() as ctx:
    train.seed_everything(7)
    features = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
    target = features.sum(1, keepdim=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
    wrapped = DistributedDataParallel(model) if ctx.world > 1 else model
    optimizer = torch.optim.AdamW([{"params": model[0].parameters(), "lr": 1e-2}, {"params": model[3].parameters()}])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=40)
    batches = train.Batches(96, 16, seed=3, epochs=4)
    loop = train.Loop(model=wrapped, optimizer=optimizer, scheduler=scheduler, data=batches, every_steps=5)
    torch.manual_seed(11 + ctx.rank) if loop.step == 0 else None
    for indices in loop:
        noise = float(np.random.rand()) * 1e-3
        loss = ((wrapped(features[indices]) - target[indices]) ** 2).mean() + noise * model[0].weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        loop.log(loss=loss)
        print("batch", loop.step, indices.tolist(), flush=True)
        if loop.step + 1 == KILL_AT and ctx.rank == KILL_RANK and not os.path.exists("killed"):
            open("killed", "w").close()
            while "MEASURED" in os.environ and loop._keeper.disk_s is None:
                loop._keeper.look()
                time.sleep(0.01)
            os.kill(os.getpid(), SIGNAL)
    if ctx.rank == 0:
        save_file(model.state_dict(), "final.safetensors")
"""


ENDING = """
import runpy, sys
from tradewind.agent.harness import exit_code, leave
sys.argv[:] = ["script.py"]
sys.path[0] = ""
try:
    runpy.run_path("script.py", run_name="__main__")
except SystemExit as error:
    leave(exit_code(error))
except BaseException as error:
    sys.excepthook(type(error), error, error.__traceback__)
    leave(1)
leave(0)
"""
"""Runs the script and ends as a worker of an agent does: an interpreter that takes torch's threads apart may abort."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, world: int, port: int, **extra: str) -> dict[str, str]:
    """What torchrun sets, with none of Tradewind's variables unless given."""
    clean = {key: value for key, value in os.environ.items() if key not in names.ENVIRONMENT}
    src = str(Path(__file__).parents[2] / "src")
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return clean | {"PYTHONPATH": src, "OMP_NUM_THREADS": "1"} | (place if world > 1 else {}) | extra


def run(folder: Path, world: int, *, script: str = SCRIPT, **extra: str) -> list[tuple[int, str]]:
    """Run a script on every rank in `folder` until one fails, and return (exit code, output) by rank."""
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(script)
    port = free_port()
    workers = []
    for rank in range(world):
        journal = {names.ENV_JOURNAL: str(folder / f"rank{rank}.jsonl")}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", ENDING],
                cwd=folder,
                env=environment(rank, world, port, **journal, **extra),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return [(worker.returncode, output) for worker, output in zip(workers, outputs, strict=True)]
