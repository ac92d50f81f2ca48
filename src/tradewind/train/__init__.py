"""Inside a training process: a resumable loop, exactly-once batches, checkpoints and a step ledger."""

from tradewind.train import checkpoint
from tradewind.train.communication import communication
from tradewind.train.data import Batches
from tradewind.train.distributed import Distributed, distributed, rank, world_size
from tradewind.train.loop import Loop
from tradewind.train.random_state import seed_everything

__all__ = [
    "Batches",
    "Distributed",
    "Loop",
    "checkpoint",
    "communication",
    "distributed",
    "rank",
    "seed_everything",
    "world_size",
]
