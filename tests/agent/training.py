"""A small training script whose every delivered sample and final weight can be checked, and a way to run it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradewind.store import Event, Run, open_store

SCRIPT = """
import os, signal, sys, time
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from safetensors.torch import save_file
from tradewind import train

OUT = os.environ["OUT"]
PLAN = dict(item.split("=") for item in os.environ.get("PLAN", "").split(",") if item)

def maybe(name, step, rank):
    # KILL=13/1: the first time rank 1 is in step 13. A marker file remembers that it happened.
    if PLAN.get(name) == f"{step}/{rank}" and not os.path.exists(f"{OUT}/{name}"):
        open(f"{OUT}/{name}", "w").close()
        return True

# gloo also where there are GPUs: a machine with one of them has several workers share it.
with train.distributed(device=os.environ.get("DEVICE", "cpu"), backend="gloo") as ctx:
    if ctx.device.type == "cuda":
        print("on", ctx.device, "held before:", torch.cuda.memory_allocated() >> 20, "MiB")
        ballast = torch.empty(1 << 28, dtype=torch.uint8, device=ctx.device)
    train.seed_everything(7)
    features = torch.randn(96, 8, generator=torch.Generator().manual_seed(1)).to(ctx.device)
    target = features.sum(1, keepdim=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
    model.to(ctx.device)
    wrapped = DistributedDataParallel(model) if ctx.world > 1 else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = train.Batches(96, 12, seed=3, epochs=int(os.environ.get("EPOCHS", "4")))
    loop = train.Loop(
        model=wrapped, optimizer=optimizer, data=batches, every_steps=int(os.environ.get("EVERY", "1000")), max_recompute=1,
    )
    if loop.step == 0:
        torch.manual_seed(11 + ctx.rank)
    for indices in loop:
        step = loop.step + 1
        if maybe("KILL", step, ctx.rank):
            os.kill(os.getpid(), signal.SIGKILL)
        if maybe("STOP", step, ctx.rank):
            os.kill(os.getpid(), signal.SIGSTOP)
        if PLAN.get("BUG") == f"{step}/{ctx.rank}":
            raise ValueError("this step always fails")
        if maybe("OUTSIDE", step, ctx.rank):
            features[torch.tensor([1 << 40], device=ctx.device)].sum().item()
        if maybe("LARGE", step, ctx.rank):
            torch.empty(1 << 44, device=ctx.device)
        if PLAN.get("SLOW"):
            time.sleep(float(PLAN["SLOW"]))
        if PLAN.get("WAIT") == str(step):
            while not os.path.exists(f"{OUT}/go"):
                time.sleep(0.01)
        loss = ((wrapped(features[indices]) - target[indices]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with open(f"{OUT}/samples.{os.getpid()}", "a") as out:
            out.write(f"{step} {ctx.world} {ctx.rank} {' '.join(map(str, indices.tolist()))}\\n")
    if ctx.rank == 0:
        save_file(model.state_dict(), f"{OUT}/final.safetensors")
"""


TRADEWIND = (sys.executable, "-c", "import sys; from tradewind.cli.main import main; sys.exit(main())")


@dataclass
class Finished:
    """A run that has ended, and what it left."""

    code: int
    output: str
    run: Run
    events: list[Event]
    out: Path

    def of(self, kind: str) -> list[Event]:
        """Its events of one kind, in order."""
        return [event for event in self.events if event.kind == kind]

    @property
    def weights(self) -> bytes:
        """The final weights."""
        return (self.out / "final.safetensors").read_bytes()

    def pids(self, attempt: int) -> dict[int, int]:
        """Process id by rank."""
        return {e.rank or 0: e.data["pid"] for e in self.of("worker_started") if e.attempt == attempt}

    def committed(self) -> dict[int, list[int]]:
        """Samples of each step as last computed, which is the time that counts.

        By the ranks of that time alone: a step that three ranks took may be taken again by one.
        """
        rows: dict[int, dict[int, tuple[int, list[int]]]] = {}
        for path in sorted(self.out.glob("samples.*"), key=lambda path: path.stat().st_mtime_ns):
            for line in path.read_text().splitlines():
                step, world, rank, *samples = map(int, line.split())
                rows.setdefault(step, {})[rank] = (world, samples)
        return {
            step: sorted(s for world, samples in by_rank.values() if world == by_rank[0][0] for s in samples)
            for step, by_rank in sorted(rows.items())
        }


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """A home and an output folder of its own."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    src = str(Path(__file__).parents[2] / "src")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")}
    own = {"TRADEWIND_HOME": str(folder / "home"), "OUT": str(folder / "out"), "PYTHONPATH": src}
    return clean | own | {"OMP_NUM_THREADS": "1"} | extra


def start(folder: Path, workers: int, script: str = SCRIPT, **extra: str) -> "subprocess.Popen[str]":
    """`tradewind run` in the background."""
    (folder / "project").mkdir(parents=True, exist_ok=True)
    (folder / "project" / "script.py").write_text(script)
    return subprocess.Popen(
        [*TRADEWIND, "run", "script.py", "--workers", str(workers)],
        cwd=folder / "project",
        env=environment(folder, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, process: "subprocess.Popen[str]") -> Finished:
    """Wait for its end."""
    try:
        output, _ = process.communicate(timeout=150)
    finally:
        process.kill()
    with open_store(f"sqlite:///{folder}/home/store.db") as store:
        (run,) = store.runs()
        return Finished(process.returncode, output, run, list(store.events(run.id)), folder / "out")


def run(folder: Path, workers: int, script: str = SCRIPT, **extra: str) -> Finished:
    """`tradewind run`, to its end."""
    return finish(folder, start(folder, workers, script, **extra))


def resize(folder: Path, workers: int) -> None:
    """`tradewind resize last`."""
    command = [*TRADEWIND, "resize", "last", "--workers", str(workers)]
    subprocess.run(command, env=environment(folder), check=True)


def wait_until(ready: Callable[[], object], missing: Callable[[], str], limit_s: float = 120.0) -> None:
    """Return once `ready()`, which other processes bring about; what is `missing` is said after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not ready():
        assert time.monotonic() < deadline, missing()
        time.sleep(0.02)


def wait_for_attempts(folder: Path, count: int) -> None:
    """Return once so many attempts have begun."""
    with open_store(f"sqlite:///{folder}/home/store.db") as store:
        (run,) = store.runs()
        wait_until(
            lambda: len(store.events(run.id, kind="attempt_started")) >= count,
            lambda: f"fewer than {count} attempts",
        )


def go_on(folder: Path) -> None:
    """Let the step at which workers WAIT begin."""
    (folder / "out" / "go").touch()


def journal(run_dir: Path, attempt: int, rank: int) -> list[dict[str, Any]]:
    """What a rank wrote down in an attempt."""
    path = run_dir / "journal" / f"attempt{attempt}" / f"rank{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]
