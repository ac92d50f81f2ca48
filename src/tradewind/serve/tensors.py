"""Tensors as bytes, on the worker's side: torch in, torch out, no copy on the way in."""

import math
from collections.abc import Mapping, Sequence

import torch

from tradewind.serve.wire import Buffer, Nan, TensorSpec, views

DTYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "FP32": torch.float32,
    "FP64": torch.float64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def to_torch(specs: Sequence[TensorSpec], body: bytearray | memoryview) -> dict[str, torch.Tensor]:
    """Return tensors that share memory with `body`, by name."""
    tensors = {}
    for spec, view in zip(specs, views(specs, body), strict=True):
        dtype = DTYPES[spec.dtype]
        flat = torch.frombuffer(view, dtype=dtype) if view.nbytes else torch.empty(0, dtype=dtype)
        tensors[spec.name] = flat.reshape(spec.shape)
    return tensors


def nan_in(tensors: Mapping[str, torch.Tensor]) -> Nan | None:
    """Return the first of `tensors` that holds NaN, and which rows do; None where none does, in a single pass."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() and math.isnan(tensor.amax().item()):
            rows = tensor.isnan().reshape(len(tensor) if tensor.ndim else 1, -1).any(1)
            return Nan(name, tuple(rows.nonzero().ravel().tolist()))
    return None


def from_torch(tensors: Mapping[str, torch.Tensor]) -> tuple[tuple[TensorSpec, ...], list[Buffer]]:
    """Return what to write in a frame for `tensors`."""
    specs, buffers = [], []
    for name, tensor in tensors.items():
        dense = tensor.detach().contiguous()
        specs.append(TensorSpec(name, NAMES[dense.dtype], tuple(dense.shape)))
        buffers.append(dense.reshape(-1).view(torch.uint8).numpy().tobytes())
    return tuple(specs), list(buffers)
