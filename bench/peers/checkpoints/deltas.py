"""How many bytes a row delta takes, restored and compared before it counts."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from tradewind.train.checkpoint.delta import DeltaStore
from tradewind.train.checkpoint.touched import ChunkHashes, RowTracker

WIDTH = 64
TOUCHED = 0.01
EXPONENT = 1.2
Touch = Callable[[int, torch.Generator], torch.Tensor]


def uniform(rows: int, draw: torch.Generator) -> torch.Tensor:
    """A hundredth of the rows, any of them."""
    return torch.randperm(rows, generator=draw)[: int(rows * TOUCHED)]


def zipf(rows: int, draw: torch.Generator) -> torch.Tensor:
    """Lookups by a Zipf law, rows in no order of theirs, until a hundredth of the rows was touched."""
    weights = torch.arange(1, rows + 1, dtype=torch.float64) ** -EXPONENT
    cumulative, names = weights.cumsum(0) / weights.sum(), torch.randperm(rows, generator=draw)
    marks = torch.zeros(rows, dtype=torch.bool)
    while int(marks.sum()) < rows * TOUCHED:
        at = torch.searchsorted(cumulative, torch.rand(rows // 100, generator=draw, dtype=torch.float64))
        marks[names[at.clamp(max=rows - 1)]] = True
    return marks.nonzero().reshape(-1)


DISTRIBUTIONS: dict[str, Touch] = {"uniform": uniform, "zipf": zipf}


def delta_ratio(touch: Touch, rows: int, seed: int, *, hashed: bool) -> float:
    """A delta's bytes, manifest and all, to the table's; weights and row-wise optimizer state."""
    draw = torch.Generator().manual_seed(seed)
    tables = {"weight": torch.randn(rows, WIDTH, generator=draw), "sum": torch.rand(rows, generator=draw)}
    with tempfile.TemporaryDirectory() as folder:
        store = DeltaStore(Path(folder))
        store.save(0, tables)
        tracker, hashes = RowTracker(rows), ChunkHashes(tables["weight"])
        changed = touch(rows, draw)
        tables["weight"][changed] += 1
        tables["sum"][changed] += 1
        tracker.touch(changed)
        found = hashes.take(tables["weight"]) if hashed else tracker.take()
        saved = store.save(1, tables, dict.fromkeys(tables, found))
        loaded = DeltaStore(Path(folder)).load(1)
    if not all(torch.equal(loaded[name], tables[name]) for name in tables):
        raise RuntimeError("a delta restored other values than it saved")
    return saved.written_bytes / saved.table_bytes
