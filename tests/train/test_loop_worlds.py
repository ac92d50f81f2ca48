"""A Loop over state of every kind, saved by N workers and taken up by M, in real processes over gloo."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import workers

SCRIPT = """
import json, multiprocessing, os, shutil, socket, sys
from pathlib import Path
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from tradewind import train
from tradewind.train.checkpoint import Rows
from tradewind.train.checkpoint.rows import share_of

ROOT, SHM = Path(sys.argv[1]), Path(sys.argv[2])
KINDS, UNTIL, END = ("ddp", "fsdp", "rows"), 3, 6
torch.set_num_threads(1)

class Table:
    # 1001 rows of an embedding and their momentum, cut over the workers.
    def __init__(self, ctx):
        self.start, self.stop = share_of(1001, ctx.rank, ctx.world)
        whole = torch.randn(1001, 6, generator=torch.Generator().manual_seed(5))
        self.rows, self.momentum = whole[self.start : self.stop].clone(), torch.zeros(self.stop - self.start, 6)

    def update(self, step):
        self.momentum.mul_(0.9).add_(self.rows.sin() * step)
        self.rows.sub_(self.momentum, alpha=0.1)

    def state_dict(self):
        return {"rows": Rows(self.rows, self.start, 1001), "momentum": Rows(self.momentum, self.start, 1001)}

    def load_state_dict(self, state):
        assert (state["rows"].start, state["rows"].stop) == (self.start, self.stop)
        self.rows, self.momentum = state["rows"].local, state["momentum"].local

class Job:
    def __init__(self, ctx, kind, folder, **arguments):
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(13, 10), nn.Tanh(), nn.Linear(10, 7), nn.LayerNorm(7), nn.Linear(7, 1))
        self.table = Table(ctx) if kind == "rows" else None
        self.wrapped = self.model
        if ctx.world > 1 and kind == "fsdp":
            for layer in (self.model[0], self.model[2], self.model):
                fully_shard(layer)
        elif ctx.world > 1:
            self.wrapped = DistributedDataParallel(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, weight_decay=0.1)
        self.loop = train.Loop(
            model=self.wrapped, optimizer=self.optimizer, data=train.Batches(12 * END, 12, epochs=1),
            extra=self.table, checkpoint_dir=folder, **arguments
        )

    def run(self):
        inputs = torch.randn(12 * END, 13, generator=torch.Generator().manual_seed(5))
        for indices in self.loop:
            self.optimizer.zero_grad()
            self.wrapped(inputs[indices]).square().mean().backward()
            self.optimizer.step()
            if self.table is not None:
                self.table.update(self.loop.step)
        return self

    def everything(self, ctx):
        # All state, whole, on every worker.
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"{index}.{key}": value for key, value in moments.items()}
        found = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in found.items()}
        if self.table is not None:
            found |= {name: together(ctx, rows) for name, rows in self.table.state_dict().items()}
        return {name: value.detach().clone() for name, value in found.items()}

def together(ctx, rows):
    if ctx.world == 1:
        return rows.local
    padded = torch.zeros(-(-rows.total // ctx.world), rows.local.shape[1])
    padded[: len(rows.local)] = rows.local
    parts = [torch.empty_like(padded) for _ in range(ctx.world)]
    dist.all_gather(parts, padded)
    return torch.cat(parts)[: rows.total]

def agent(kind, before):
    # What an agent sets; the folder in memory is one for each state.
    os.environ["TRADEWIND_MEMORY"] = str(SHM / f"{kind}-{before}")
    os.environ["TRADEWIND_JOURNAL"] = str(ROOT / f"journal-{kind}-{before}-{os.getpid()}")

def tier():
    entries = map(json.loads, Path(os.environ["TRADEWIND_JOURNAL"]).read_text().splitlines())
    return [entry["tier"] for entry in entries if entry["kind"] == "resume"][-1]

def save(ctx, kind, before, after):
    agent(kind, before)
    folder = ROOT / f"{kind}-{before}"
    # Steps 1 to 3 are staged, 2 is written in the background, 3 at the end.
    truth = Job(ctx, kind, folder, max_steps=UNTIL, max_recompute=1, every_steps=2).run().everything(ctx)
    os.environ.pop("TRADEWIND_MEMORY")
    ended = Job(ctx, kind, ROOT / f"{kind}-{before}-calm").run().everything(ctx)
    if ctx.rank == 0:
        assert train.checkpoint.steps(folder) == [2, 3], train.checkpoint.steps(folder)
        torch.save([truth, ended], ROOT / f"{kind}-{before}.pt")

def load(ctx, kind, before, after):
    truth, ended = torch.load(ROOT / f"{kind}-{before}.pt", weights_only=True)
    agent(kind, before)
    equal(Job(ctx, kind, ROOT / "none").everything(ctx), truth, kind, before, after, "memory")
    assert tier() == "memory"
    os.environ.pop("TRADEWIND_MEMORY")
    folder = ROOT / f"{kind}-{before}-to-{after}"
    if ctx.rank == 0:
        shutil.copytree(ROOT / f"{kind}-{before}", folder)
    job = Job(ctx, kind, folder)
    assert tier() == "disk" and job.loop.step == UNTIL
    equal(job.everything(ctx), truth, kind, before, after, "disk")
    found = job.run().everything(ctx)
    assert job.loop.step == END and found.keys() == ended.keys()
    if before == after:
        equal(found, ended, kind, before, after, "end")
    else:  # Gradients are summed in another order.
        for name in ended:
            torch.testing.assert_close(found[name], ended[name], msg=lambda text: f"{kind} {before} {after} {name} {text}")

def equal(found, truth, *where):
    assert found.keys() == truth.keys(), (where, found.keys() ^ truth.keys())
    for name in truth:
        assert torch.equal(found[name], truth[name]), (*where, name)

def work(do, rank, world, port, before):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with train.distributed() as ctx:
        for kind in KINDS:
            do(ctx, kind, before, world)

def start(do, world, before):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=work, args=(do, rank, world, port, before)) for rank in range(world)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * world, (do.__name__, before, world)

BEFORE, AFTER = int(sys.argv[3]), [int(text) for text in sys.argv[4].split(",")]
start(save, BEFORE, BEFORE)
for after in AFTER:
    start(load, after, BEFORE)
print("all")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, "2"), (2, "1,2"), (3, "2")])
def test_a_loop_moves_between_worlds(before: int, after: str, tmp_path: Path, shm: Path) -> None:
    """Under DDP, FSDP2 and with a table cut by rows, what is taken up from memory and disk is bitwise what was left."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(shm), str(before), after]
    env = workers.environment(0, 1, 0)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all\n", done.stdout + done.stderr
