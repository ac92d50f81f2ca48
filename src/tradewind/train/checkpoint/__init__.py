"""Crash-safe checkpoints without pickle: safetensors for tensors, JSON for the rest, digests over both."""

from tradewind.train.checkpoint.background import Saved, Saver
from tradewind.train.checkpoint.loaded import Loaded
from tradewind.train.checkpoint.manifest import Manifest
from tradewind.train.checkpoint.memory import Memory
from tradewind.train.checkpoint.reader import latest, load, steps, verify
from tradewind.train.checkpoint.rows import Rows
from tradewind.train.checkpoint.writer import prune, save

__all__ = [
    "Loaded",
    "Manifest",
    "Memory",
    "Rows",
    "Saved",
    "Saver",
    "latest",
    "load",
    "prune",
    "save",
    "steps",
    "verify",
]
