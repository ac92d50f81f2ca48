"""A worker's arrays as torch's tensors, which share memory with them, and back."""

from collections.abc import Mapping, Sequence

import torch

from tradewind.serve.arrays import Answer, Arrays
from tradewind.serve.wire import TensorSpec

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


def to_torch(specs: Sequence[TensorSpec], arrays: Arrays) -> dict[str, torch.Tensor]:
    """Return tensors that share memory with `arrays`, by name."""
    tensors = {}
    for spec in specs:
        tensor = torch.from_numpy(arrays[spec.name])
        tensors[spec.name] = tensor.view(torch.bfloat16) if spec.dtype == "BF16" else tensor
    return tensors


def from_torch(tensors: Mapping[str, torch.Tensor]) -> Answer:
    """Return what to write in a frame for `tensors`."""
    specs, buffers = [], []
    for name, tensor in tensors.items():
        specs.append(TensorSpec(name, NAMES[tensor.dtype], tuple(tensor.shape)))
        known = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
        buffers.append(known.numpy(force=True).tobytes())
    return tuple(specs), list(buffers)
