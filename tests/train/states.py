"""Small checkpoint contents and peers to test with."""

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tradewind.train import checkpoint
from tradewind.train.distributed import Peers


def shared(step: int) -> dict[str, Any]:
    """State that all workers hold alike."""
    model = {"weight": torch.arange(12.0).reshape(3, 4) + step, "tied": torch.ones(3).bfloat16()}
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]}
    return {"model": model, "optimizer": optimizer}


def own(rank: int) -> dict[str, Any]:
    """A worker's own state."""
    return {"rank": rank, "random": torch.arange(5, dtype=torch.uint8) + rank}


def save(root: Path, step: int) -> Path:
    """A checkpoint of one worker."""
    return checkpoint.save(root, step, shared(step), own(0))


class ThreadPeers(Peers):
    """Workers that are threads of this process, agreeing over a barrier."""

    def __init__(self, rank: int, table: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.world = rank, len(table)
        self._table, self._barrier = table, barrier

    def gather(self, message: Any) -> list[Any]:
        self._table[self.rank] = message
        self._barrier.wait(10)
        messages = list(self._table)
        self._barrier.wait(10)
        return messages

    def start_largest(self, values: Sequence[int]) -> list[int]:
        return [max(said) for said in zip(*self.gather(list(values)), strict=True)]

    @staticmethod
    def largest(pending: list[int]) -> list[int]:
        return pending


def on_all(world: int, work: Any) -> list[Any]:
    """`work(peers)` on every one of `world` workers: its results or exceptions by rank."""
    table: list[Any] = [None] * world
    barrier, results = threading.Barrier(world), [None] * world

    def call(rank: int) -> None:
        try:
            results[rank] = work(ThreadPeers(rank, table, barrier))
        except Exception as error:  # noqa: BLE001 - the test sees it in the results
            results[rank] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def flip(path: Path, at: int) -> None:
    """Flip bits of one byte."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= random.Random(at).randrange(1, 256)
    path.write_bytes(raw)
