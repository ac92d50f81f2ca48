"""Tensors as bytes on the worker's side."""

import pytest
import torch

from tradewind.serve.tensors import DTYPES, from_torch, nan_in, to_torch
from tradewind.serve.wire import ITEM_BYTES, Nan


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nan_is_found_with_its_rows(dtype):
    """In the first tensor that holds any, whatever its shape; an infinity is a number."""
    fine = torch.tensor([[torch.inf, -torch.inf], [0.0, 1.0], [1.0, 2.0]], dtype=dtype)
    assert nan_in({"a": fine, "b": torch.ones(3, dtype=torch.int64), "c": torch.empty(0, 2)}) is None
    broken = fine.clone()
    broken[0, 1] = broken[2, 0] = torch.nan
    assert nan_in({"a": fine, "b": broken.reshape(3, 1, 2), "c": broken}) == Nan("b", (0, 2))
    assert nan_in({"s": torch.tensor(torch.nan, dtype=dtype)}) == Nan("s", (0,))
