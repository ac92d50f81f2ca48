"""Which rows changed: told by the caller, seen by a hook, or found by hashing."""

import pytest
import torch
from torch import nn

from tradewind.errors import TradewindError
from tradewind.train.checkpoint.touched import ChunkHashes, RowTracker


def test_touched_rows_are_taken_once() -> None:
    """Each row comes once, ascending, and a second take has only what was touched in between."""
    tracker = RowTracker(10)
    tracker.touch(torch.tensor([[7, 2], [2, 9]]))
    assert tracker.take().tolist() == [2, 7, 9]
    tracker.touch(torch.tensor([4]))
    assert tracker.take().tolist() == [4]
    assert tracker.take().tolist() == []


def test_rows_given_back_come_again() -> None:
    """Rows whose save failed are taken again together with newer ones."""
    tracker = RowTracker(10)
    tracker.touch(torch.tensor([3]))
    taken = tracker.take()
    tracker.touch(torch.tensor([5]))
    tracker.give_back(taken)
    assert tracker.take().tolist() == [3, 5]


def test_rows_outside_the_table_are_an_error() -> None:
    """An index beyond the table raises where it is touched."""
    with pytest.raises(IndexError):
        RowTracker(10).touch(torch.tensor([10]))


def test_training_lookups_are_seen() -> None:
    """A watched embedding marks what it looks up while it trains, and nothing in evaluation."""
    module, tracker = nn.Embedding(10, 3), RowTracker(10)
    tracker.watch(module)
    module(torch.tensor([1, 8]))
    module.eval()
    module(torch.tensor([5]))
    assert tracker.take().tolist() == [1, 8]


def test_a_sparse_gradient_names_its_rows() -> None:
    """The rows of a sparse gradient are those that the optimizer then changes; a dense one is refused."""
    module, tracker = nn.Embedding(10, 3, sparse=True), RowTracker(10)
    tracker.touch_gradient(module.weight)
    module(torch.tensor([1, 8, 8])).sum().backward()
    before = module.weight.detach().clone()
    tracker.touch_gradient(module.weight)
    torch.optim.SparseAdam(module.parameters()).step()
    rows = tracker.take()
    assert rows.tolist() == [1, 8]
    assert (module.weight != before).any(1).nonzero().reshape(-1).tolist() == rows.tolist()
    dense = nn.Embedding(10, 3)
    dense(torch.tensor([1])).sum().backward()
    with pytest.raises(TradewindError, match="sparse=True"):
        tracker.touch_gradient(dense.weight)


@pytest.mark.parametrize("shape", [(103, 5), (103,), (103, 2, 3)])
def test_hashing_finds_every_changed_row(shape: tuple[int, ...]) -> None:
    """All rows that changed are among those found, and far rows are not."""
    table = torch.randn(shape)
    hashes = ChunkHashes(table, chunk_bytes=64)
    table[50] += 1
    table[102] += 1
    found = hashes.take(table).tolist()
    assert {50, 102} <= set(found)
    assert 0 not in found
    assert max(found) == 102
    assert hashes.take(table).tolist() == []


def test_hashing_takes_given_rows_again() -> None:
    """Rows given back are found again though they did not change once more."""
    table = torch.randn(100, 4)
    hashes = ChunkHashes(table, chunk_bytes=16)
    table[42] += 1
    found = hashes.take(table)
    assert found.tolist() == [42]
    hashes.give_back(found)
    assert hashes.take(table).tolist() == [42]
