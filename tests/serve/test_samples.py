"""Inputs made from a signature alone: sizes that go together, values that a program does not refuse."""

import pytest
import torch

from tradewind.serve.samples import randomly, zeros
from tradewind.serve.wire import Port


def port(name: str, dtype: str, *dims: tuple[int, str | None, tuple[int, int | None]]) -> Port:
    shape, symbols, ranges = zip(*dims, strict=True)
    return Port(name=name, dtype=dtype, shape=shape, symbols=symbols, range=ranges)


ANY = (1, None)
JAGGED = (
    port("values", "INT64", (-1, "t", ANY)),
    port("offsets", "INT64", (-1, "b + 1", (2, None))),
    port("scale", "FP32", (-1, "b", ANY), (3, None, (3, 3))),
)


def test_sizes_go_together():
    """The batch is as large as it is asked for; `b + 1` is one more than `b`, and offsets share out the values."""
    sample = zeros(JAGGED, "b", 5)
    assert {name: list(t.shape) for name, t in sample.items()} == {
        "values": [8],
        "offsets": [6],
        "scale": [5, 3],
    }
    assert sample["offsets"].tolist() == [0, 1, 3, 4, 6, 8]


@pytest.mark.parametrize(("limits", "size"), [((1, None), 8), ((20, None), 20), ((1, 3), 3)])
def test_a_free_size_is_within_its_range(limits, size):
    """Eight, or as near to it as may be."""
    assert zeros([port("x", "FP32", (-1, "n", limits))], None, 1)["x"].shape == (size,)


def test_random_whole_numbers_are_drawn_smaller_until_the_program_takes_them():
    """Offsets stay what they are."""
    table, seen = torch.randn(20), []

    def run(tensors):
        seen.append(tensors)
        return table[tensors["values"]]

    sample = zeros(JAGGED, "b", 5)
    assert randomly(run, JAGGED, sample)
    assert len(seen) > 1
    assert int(seen[-1]["values"].max()) < 20
    assert torch.equal(seen[-1]["offsets"], sample["offsets"])
    assert seen[-1]["scale"].std() > 0


def test_a_program_that_takes_nothing_is_left_in_peace():
    """It says so."""

    def run(tensors):
        raise IndexError

    assert not randomly(run, JAGGED, zeros(JAGGED, "b", 2))
