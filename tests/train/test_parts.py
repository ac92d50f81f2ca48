"""The division of what all workers hold alike."""

import pytest
import torch

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint import tensorfile
from tradewind.train.checkpoint.parts import divide
from tradewind.train.checkpoint.tensorfile import Piece

MODELS: dict[str, list[tuple[int, ...]]] = {
    "one table": [(1_000_003, 16)],
    "table and layers": [(400_000, 16), *[(256, 256)] * 40, (256,)],
    "layers": [(512, 512)] * 31 + [(512,)] * 31,
    "vectors": [(3_000_000,), (1,), ()],
    "one long row": [(1, 5_000_000), (10, 10)],
    "tiny": [(64, 64), (64,), ()],
    "empty": [(0, 5)],
    "nothing": [],
}


def pieces(name: str) -> list[Piece]:
    """The tensors of a model."""
    return [Piece(f"t{index}", torch.float32, shape) for index, shape in enumerate(MODELS[name])]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("name", MODELS)
def test_every_row_is_in_exactly_one_part(name: str, count: int) -> None:
    """The parts of a model hold each row of each tensor once, whole tensors under their own names."""
    parts = divide(pieces(name), count)
    assert len(parts) == count
    for whole in pieces(name):
        found = sorted(piece.rows for part in parts for piece in part if piece.name == whole.name)
        assert [first for first, _ in found] == [whole.rows[0], *[stop for _, stop in found[:-1]]]
        assert found[-1][1] == whole.rows[1]
        if len(found) == 1:
            assert any(whole in part for part in parts)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("name", ["one table", "table and layers", "layers", "vectors"])
def test_parts_are_about_equal(name: str, count: int) -> None:
    """No part has more than 30% above its share."""
    loads = [sum(piece.nbytes for piece in part) for part in divide(pieces(name), count)]
    assert max(loads) <= 1.3 * sum(loads) / count


def test_a_small_model_is_not_scattered() -> None:
    """Less than a MiB is not worth several files."""
    assert [len(part) for part in divide(pieces("tiny"), 4)] == [3, 0, 0, 0]


def test_a_head_tells_where_everything_lies() -> None:
    """What `layout` wrote `parse` reads: names, slices, types and places."""
    given = [
        Piece("w", torch.float32, (3, 2)),
        Piece("table", torch.bfloat16, (4, 2), 10),
        Piece("none", torch.int64, (0, 3), 7),
        Piece("odd[1:2]#2", torch.bool, ()),
    ]
    head, located, size = tensorfile.layout(given)
    assert size == len(head) + 24 + 16 + 0 + 1
    assert len(head) % 64 == 0
    assert all(it.offset % it.piece.dtype.itemsize == 0 for it in located)
    assert sorted(map(str, tensorfile.parse(head, size, "x"))) == sorted(map(str, located))


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype":"F32","shape":[2],"data_offsets":[0,9]}',
        '{"dtype":"F32","shape":[2],"data_offsets":[4,12]}',
        '{"dtype":"F33","shape":[2],"data_offsets":[0,8]}',
        '{"dtype":"F32","shape":2,"data_offsets":[0,8]}',
        '{"shape":[2]}',
        "3",
        "[",
    ],
)
def test_a_head_that_lies_is_refused(entry: str) -> None:
    """A header that does not fit its file is refused by the file's name."""
    head = b"12345678" + b'{"w":' + entry.encode() + b"}"
    with pytest.raises(IntegrityError, match=r"shared\.safetensors is damaged"):
        tensorfile.parse(head, len(head) + 8, "shared.safetensors")
