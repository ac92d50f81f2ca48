"""The process that writes checkpoints while it is watched, or until it kills itself.

    python -m bench.peers.checkpoints.writer history STORE FOLDER STEPS
    python -m bench.peers.checkpoints.writer kills STORE FOLDER TEAR
    python -m bench.peers.checkpoints.writer images tradewind_memory FOLDER WORLD

`history` commits steps 1 to STEPS in FOLDER/root and logs every operation to FOLDER/log; with `RANK`
and `WORLD_SIZE` in the environment the ranks do it together. `kills` commits steps 1 and 2 in
FOLDER/start, then, for k = 0, 1, ... until one gets through, copies that to FOLDER/k/root and forks
a process that commits step 3 there and gets SIGKILL instead of operation k; when that operation is
a write, the fraction TEAR of its bytes has been written before. `images` stages step 1 of all ranks
in FOLDER/root.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from bench.faults.record import Recorder, note, recording
from bench.peers.checkpoints.stores import STORES, TradewindMemory, example


def history(name: str, folder: Path, steps: int) -> None:
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        meeting = f"file://{folder.absolute()}/meeting"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    store = STORES[name](folder / "root")
    with recording(Recorder(folder / "root", folder / "log")) as recorder:
        for step in range(1, steps + 1):
            store.save(step, *example(step, rank))
            note(recorder, f"saved {step}")
            if world > 1:
                torch.distributed.barrier()
            if rank == 0:
                store.prune(step)
    if world > 1:
        torch.distributed.destroy_process_group()


def kills(name: str, folder: Path, tear: float) -> None:
    start = folder / "start"
    start.mkdir()
    before = STORES[name](start)
    for step in (1, 2):
        before.save(step, *example(step, 0))
    number, killed = 0, True
    while killed:
        here = folder / str(number)
        shutil.copytree(start, here / "root")
        killed = _dies(name, here, number, tear)
        number += 1


def _dies(name: str, here: Path, number: int, tear: float) -> bool:
    child = os.fork()
    if child == 0:
        store = STORES[name](here / "root")
        with recording(Recorder(here / "root", here / "log", kill_at=number, tear=tear)) as recorder:
            store.save(3, *example(3, 0))
            note(recorder, "saved 3")
            store.prune(3)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the writer at operation {number} ended with {code}")
    return code != 0


def main() -> None:
    mode, name, folder, value = sys.argv[1:]
    torch.set_num_threads(1)
    if mode == "history":
        history(name, Path(folder), int(value))
    elif mode == "images":
        TradewindMemory(Path(folder) / "root").stage(1, int(value))
    else:
        kills(name, Path(folder), float(value))


if __name__ == "__main__":
    main()
