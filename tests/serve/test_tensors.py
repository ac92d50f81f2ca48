"""Tensors as bytes on the worker's side."""

import pytest
import torch

from tradewind.serve.arrays import nan_in, to_arrays
from tradewind.serve.tensors import DTYPES, from_torch, to_torch
from tradewind.serve.wire import ITEM_BYTES, Nan


def there(specs, body):
    """What a worker makes of a frame."""
    return to_torch(specs, to_arrays(specs, bytearray(body)))


def nan_among(tensors):
    """What a worker finds in these."""
    specs, buffers = from_torch(tensors)
    return nan_in(specs, to_arrays(specs, bytearray(b"".join(buffers))))


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
    back = there(specs, b"".join(buffers))
    assert list(back) == ["a", "b"]
    for other in back.values():
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(other, tensor)


def test_what_is_not_contiguous_is_laid_out_first():
    """A transposed or sliced result comes out in row-major order."""
    tensor = torch.arange(6).reshape(2, 3).T[1:]
    specs, buffers = from_torch({"t": tensor})
    assert torch.equal(there(specs, buffers[0])["t"], tensor)


def test_arriving_tensors_are_not_copied():
    """They share the frame's memory."""
    specs, buffers = from_torch({"t": torch.zeros(2)})
    body = bytearray(buffers[0])
    tensor = to_torch(specs, to_arrays(specs, body))["t"]
    body[:4] = b"\x00\x00\x80\x3f"
    assert tensor.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_nan_is_found_with_its_rows(dtype, sign):
    """In the first tensor that holds any, whatever its shape and sign; an infinity is a number, also as integers."""
    fine = torch.tensor([[torch.inf, -torch.inf], [0.0, 1.0], [1.0, 2.0]], dtype=dtype)
    whole = torch.full((3,), -1)
    assert nan_among({"a": fine, "b": whole, "h": whole.to(torch.int16), "c": torch.empty(0, 2)}) is None
    broken = fine.clone()
    broken[0, 1] = broken[2, 0] = torch.tensor(torch.nan, dtype=dtype).copysign(torch.tensor(sign))
    assert nan_among({"a": fine, "b": broken.reshape(3, 1, 2), "c": broken}) == Nan("b", (0, 2))
    assert nan_among({"s": torch.tensor(torch.nan, dtype=dtype)}) == Nan("s", (0,))


def test_tensors_may_lie_at_any_byte():
    """What stands behind three bytes is read all the same."""
    sent = {
        "b": torch.tensor([True, False, True]),
        "x": torch.tensor([1.5, -2.0]),
        "h": torch.tensor([0.5]).bfloat16(),
    }
    specs, buffers = from_torch(sent)
    found = there(specs, b"".join(buffers))
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "b": [True, False, True],
        "x": [1.5, -2.0],
        "h": [0.5],
    }
