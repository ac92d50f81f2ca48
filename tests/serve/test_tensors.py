"""Tensors as bytes on the worker's side."""

import pytest
import torch

from tradewind.serve.tensors import DTYPES, from_torch, to_torch
from tradewind.serve.wire import ITEM_BYTES


def test_every_type_of_the_protocol_has_a_torch_type_of_its_size():
    """Sizes on both sides of the socket agree."""
    assert DTYPES.keys() == ITEM_BYTES.keys()
    assert all(ITEM_BYTES[name] == dtype.itemsize for name, dtype in DTYPES.items())


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize("name", sorted(DTYPES))
def test_tensors_survive_the_wire(name, shape):
    """Every type and shape, empty ones and scalars too."""
    tensor = torch.ones(shape).to(DTYPES[name])
    specs, buffers = from_torch({"a": tensor, "b": tensor})
    back = to_torch(specs, bytearray(b"".join(buffers)))
    assert list(back) == ["a", "b"]
    for other in back.values():
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(other, tensor)


def test_what_is_not_contiguous_is_laid_out_first():
    """A transposed or sliced result comes out in row-major order."""
    tensor = torch.arange(6).reshape(2, 3).T[1:]
    specs, buffers = from_torch({"t": tensor})
    assert torch.equal(to_torch(specs, bytearray(buffers[0]))["t"], tensor)


def test_arriving_tensors_are_not_copied():
    """They share the frame's memory."""
    specs, buffers = from_torch({"t": torch.zeros(2)})
    body = bytearray(buffers[0])
    tensor = to_torch(specs, body)["t"]
    body[:4] = b"\x00\x00\x80\x3f"
    assert tensor.tolist() == [1.0, 0.0]
