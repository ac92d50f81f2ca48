"""What loading gives, from memory or from disk."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint's content: `shared` by all workers, and `own` of the rank that was asked for."""

    step: int
    world: int
    shared: dict[str, Any]
    own: dict[str, Any]
