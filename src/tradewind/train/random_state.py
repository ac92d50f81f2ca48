"""The global random number generators of Python, numpy and torch, as one state."""

import random
from typing import Any

import numpy as np
import torch

_TORCH_DEFAULT_SEED = 67280421310721
"""What torch seeds its generators with at start; it has no name for it in Python."""


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators (torch's on every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def reseed() -> None:
    """Put every global generator where a new process would have it."""
    random.seed()
    np.random.seed()
    torch.manual_seed(_TORCH_DEFAULT_SEED)


def random_state() -> dict[str, Any]:
    """The state of every global generator of this process; of GPUs, the current one."""
    # Not the generators of all devices: asking for them would occupy memory on every one.
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    version, words, gauss = random.getstate()
    return {
        "python": {"version": version, "words": np.array(words, np.uint32), "gauss": gauss},
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every global generator back into a state from `random_state`."""
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(state["numpy"])
    # A copy: torch reads the bytes as words, and where they lie in a checkpoint's file is not aligned for it.
    torch.set_rng_state(state["torch"].clone())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].clone())
