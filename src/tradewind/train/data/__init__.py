"""Data for training: batches delivered exactly once."""

from tradewind.train.data.batches import Batches

__all__ = ["Batches"]
