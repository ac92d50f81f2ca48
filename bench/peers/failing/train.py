"""Trains a small model on gloo and fails as FAULT says, a JSON object: kind, rank, step and a mark for its message.

Rank `other` fails by itself a moment later, where the kind says so. Everything else that ranks report is what
torch.distributed reports when a peer is gone.
"""

import atexit
import ctypes
import datetime
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

FAULT = json.loads(os.environ["FAULT"])
KIND, MARK = FAULT["kind"], FAULT["mark"]
RANK = int(os.environ["RANK"])
MINE = FAULT["rank"] == RANK
LONG, SHORT = datetime.timedelta(seconds=120), datetime.timedelta(seconds=5)
HANGS = KIND in ("sleeps", "stopped")


class Rows(Dataset[Tensor]):
    """Random rows; one of them cannot be read."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        if MINE and KIND == "data_worker" and index >= 8 * FAULT["step"]:
            raise ValueError(f"{MARK}: row {index} is damaged")
        return torch.full((8,), float(index))


class Model(nn.Module):
    """One layer, in the middle of which a rank may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)
        self.step = 0

    def forward(self, rows: Tensor) -> Tensor:
        if MINE and KIND == "forward" and self.step == FAULT["step"]:
            self.layer(rows[:, :3])
        return self.layer(rows).square().mean()


def fail() -> None:
    """Fail in the way that was asked for."""
    match KIND:
        case "raise":
            raise ValueError(f"{MARK}: this batch is wrong")
        case "raise_from":
            try:
                {}[MARK]
            except KeyError as error:
                raise LookupError(f"{MARK}: no such feature") from error
        case "of_a_library":
            json.loads('{"' + MARK + '": }')
        case "lines":
            raise RuntimeError(
                f"{MARK}: many lines follow\nConnection closed by peer is only text here\nand more"
            )
        case "connection":
            raise ConnectionResetError(f"{MARK}: the feature store closed the connection")
        case "assert":
            assert not MARK, f"{MARK} must not be there"
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "oom_kill":
            _hold = bytearray(64 << 20)
            os.kill(os.getpid(), signal.SIGKILL)  # As the kernel does it: without a word.
        case "no_memory":
            resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
            torch.empty(1 << 40)
        case "segv":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            sys.exit(FAULT["code"])
        case "os_exit":
            os._exit(FAULT["code"])
        case "import":
            importlib.import_module(MARK.replace("-", "_"))
        case "sleeps":
            time.sleep(10_000)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "thread":
            in_thread()
        case "slow_end":
            atexit.register(time.sleep, 1.5)
            dist.destroy_process_group()
            raise ValueError(f"{MARK}: this batch is wrong")
        case "close":
            raise ValueError(f"{MARK}: this batch is wrong")


def in_thread() -> None:
    """A thread that feeds the training dies, and the main thread ends the process."""

    def feed() -> None:
        raise ValueError(f"{MARK}: the feed broke")

    feeder = threading.Thread(target=feed)
    feeder.start()
    feeder.join()
    sys.exit(1)


def secondary(error: Exception) -> None:
    """What the other ranks make of a peer that is gone."""
    match FAULT["others"]:
        case "wrap":
            raise RuntimeError("training stopped") from error
        case "log_and_exit":
            print(f"training stopped: {error}", file=sys.stderr)
            sys.exit(1)
        case _:
            raise error


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, rows: Tensor, number: int) -> None:
    """One step, before which the failure of this rank is due."""
    if MINE and number == FAULT["step"]:
        fail()
    if KIND == "close" and FAULT["other"] == RANK and number == FAULT["step"]:
        time.sleep(FAULT["gap_s"])
        raise KeyError("the second failure, by itself")
    try:
        optimizer.zero_grad()
        model(rows).backward()
        optimizer.step()
        if KIND != "close" and not HANGS:
            dist.barrier()
    except Exception as error:  # Whatever it is, this rank's reaction to it is what is tried.
        if MINE:
            raise
        secondary(error)


@record
def main() -> None:
    """Train six steps."""
    if MINE and FAULT["step"] < 0:
        fail()
    torch.manual_seed(0)
    dist.init_process_group("gloo", timeout=LONG)
    dist.barrier()
    group = dist.new_group(timeout=SHORT) if HANGS else None
    inner = Model()
    model: Any = DistributedDataParallel(inner, process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    workers = 1 if KIND == "data_worker" else 0
    for number, rows in enumerate(DataLoader(Rows(), batch_size=8, num_workers=workers)):
        inner.step = number
        step_of(model, optimizer, rows, number)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
