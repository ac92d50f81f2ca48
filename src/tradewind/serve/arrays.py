"""Tensors as bytes, on the worker's side: numpy arrays in, numpy arrays out, no copy on the way in.

All of a worker's calls are read and checked here, whatever runs them: beside a model that keeps the caches to itself
each call of torch takes a tenth of a millisecond, and each of numpy a few hundredths.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tradewind.serve.protocols.values import NUMPY
from tradewind.serve.wire import Buffer, Nan, TensorSpec

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Answer = tuple[tuple[TensorSpec, ...], list[Buffer]]
"""What to write in a frame."""

BITS = np.dtype("<u2")
"""What numpy makes of BF16, which it does not have: its bits."""
_INFINITY = {"FP16": 0x7C00, "BF16": 0x7F80}
"""The bits of infinity, without the sign: more than that is NaN."""
_NAMES = {dtype: name for name, dtype in NUMPY.items()}


def to_arrays(specs: Sequence[TensorSpec], body: bytearray | memoryview) -> Arrays:
    """Return arrays that share memory with `body`, by name; BF16 as uint16."""
    arrays, start = {}, 0
    for spec in specs:
        array: Array = np.ndarray(spec.shape, NUMPY.get(spec.dtype, BITS), body, start)
        arrays[spec.name] = array
        start += array.nbytes
    return arrays


def from_arrays(arrays: Mapping[str, Array]) -> Answer:
    """Return what to write in a frame for `arrays`."""
    specs = [TensorSpec(name, _NAMES[array.dtype], array.shape) for name, array in arrays.items()]
    return tuple(specs), [array.tobytes() for array in arrays.values()]


def nan_in(specs: Sequence[TensorSpec], arrays: Arrays) -> Nan | None:
    """Return the first input that holds NaN, and which rows do; None where none does, in a single pass."""
    for spec in specs:
        among = _nan_among(spec.dtype, arrays[spec.name])
        if among is not None:
            by_row = among.reshape(len(among) if among.ndim else 1, -1)
            return Nan(spec.name, tuple(np.flatnonzero(by_row.any(axis=1)).tolist()))
    return None


def _nan_among(dtype: str, array: Array) -> Array | None:
    """Return bool[...], of which elements are NaN; None where none is."""
    if not array.size:
        return None
    infinity = _INFINITY.get(dtype)
    if infinity is not None:
        magnitude = array.view(BITS) & 0x7FFF
        return magnitude > infinity if magnitude.max() > infinity else None
    if array.dtype.kind == "f" and math.isnan(array.max()):
        return np.isnan(array)
    return None
