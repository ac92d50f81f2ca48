"""Rows of a table that is cut over the workers along its first dimension."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Rows:
    """This worker's `local` rows of a table of `total`, which begin at row `start`.

    Put it into a state dict in a tensor's place; loading gives it back, cut for the workers that load.
    """

    local: torch.Tensor
    start: int
    total: int

    @property
    def stop(self) -> int:
        """The row after the last one here."""
        return self.start + len(self.local)


def share_of(total: int, index: int, count: int) -> tuple[int, int]:
    """First row and the row after the last of part `index` of `count`, as `torch.chunk` and `Shard(0)` cut."""
    each = -(-total // count)
    return min(total, each * index), min(total, each * (index + 1))
