"""Crash-safe checkpoints without pickle: safetensors for tensors, JSON for the rest, digests over both."""

from tradewind.train.checkpoint.manifest import Manifest
from tradewind.train.checkpoint.reader import Loaded, latest, load, steps, verify
from tradewind.train.checkpoint.writer import prune, save

__all__ = ["Loaded", "Manifest", "latest", "load", "prune", "save", "steps", "verify"]
