"""safetensors bytes to tensors and back, parsed from the bytes that were verified."""

import math
from collections.abc import Mapping

import msgspec
import torch

from tradewind.errors import IntegrityError

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def load(data: bytearray, source: str) -> dict[str, torch.Tensor]:
    """The tensors in `data`, which is a file in the safetensors format.

    Raises IntegrityError naming `source` when it is not.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = msgspec.json.decode(memoryview(data)[8 : 8 + length], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in header.items()}
        return {name: _view(data, 8 + length, entry) for name, entry in entries.items()}
    except (msgspec.DecodeError, KeyError, ValueError, RuntimeError, OverflowError) as error:
        raise IntegrityError(f"{source}: not safetensors: {error}") from error


def _view(data: bytearray, start: int, entry: _Entry) -> torch.Tensor:
    dtype, count = _DTYPES[entry.dtype], math.prod(entry.shape)
    first, last = entry.data_offsets
    if min([first, *entry.shape]) < 0 or last - first != count * dtype.itemsize or start + last > len(data):
        raise ValueError(f"shape {entry.shape} does not fit bytes {first} to {last}")
    if count == 0:
        return torch.empty(entry.shape, dtype=dtype)
    # A copy of its own is aligned: on unaligned weights BLAS takes other paths, and results differ in last bits.
    raw = torch.frombuffer(data, dtype=torch.uint8, count=last - first, offset=start + first)
    return raw.clone().view(dtype).reshape(entry.shape)


def dump(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The tensors as safetensors bytes."""
    import safetensors.torch

    # Clones, because safetensors refuses tensors that share memory.
    return safetensors.torch.save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
