"""Nested state as JSON beside named tensors, and back, exactly.

What JSON lacks is an object with one key that begins with `$`: tuples, dicts with other keys than
strings, bytes, floats that are not finite, and references to tensors.
"""

import base64
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tradewind.errors import TradewindError

Tensors = dict[str, torch.Tensor]

STORED: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""What safetensors has a name for; other tensors are stored as bytes."""


class Flattener:
    """Turns state into JSON, collecting its tensors; a tensor met twice is stored once."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        self._names: dict[tuple[object, ...], str] = {}

    def encode(self, value: Any, path: str = "") -> Any:
        """JSON for the value; a TradewindError names the path of what cannot be stored."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, torch.Tensor):
            return self._stored(value, path)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, path)
        if type(value) in (list, tuple, torch.Size):
            items = [self.encode(item, f"{path}.{index}") for index, item in enumerate(value)]
            return items if type(value) is list else {_TUPLES[type(value)]: items}
        if type(value) in _DICTS:
            return self._dict(value, path)
        return self._rare(value, path)

    def _rare(self, value: Any, path: str) -> Any:
        if type(value) is bytes:
            return {"$bytes": base64.b64encode(value).decode()}
        if isinstance(value, torch.dtype):
            return {"$dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"$device": str(value)}
        raise TradewindError(
            f"{path.strip('.') or 'state'} is a {type(value).__module__}.{type(value).__qualname__}, which "
            "a checkpoint cannot hold without pickle; give it a state_dict of tensors, numbers, strings, "
            "lists, tuples and dicts"
        )

    def _dict(self, value: Mapping[Any, Any], path: str) -> Any:
        plain = type(value) is dict
        if plain and all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.encode(item, f"{path}.{key}") for key, item in value.items()}
        pairs = [[self.encode(key, path), self.encode(item, f"{path}.{key}")] for key, item in value.items()]
        return {_DICTS[type(value)]: pairs}

    def _array(self, value: Any, path: str) -> Any:
        if value.dtype.hasobject or value.dtype.names:
            raise TradewindError(f"{path.strip('.')} is a numpy array of {value.dtype}: not plain numbers")
        raw = torch.from_numpy(np.frombuffer(value.tobytes(), dtype=np.uint8).copy())
        name = self._tensor(raw, path)
        kind = "$array" if isinstance(value, np.ndarray) else "$scalar"
        return {kind: {"bytes": name, "dtype": value.dtype.str, "shape": list(value.shape)}}

    def _stored(self, tensor: torch.Tensor, path: str) -> Any:
        if tensor.layout != torch.strided or tensor.is_quantized or hasattr(tensor, "full_tensor"):
            kind = f"{type(tensor).__name__} of layout {tensor.layout}"
            raise TradewindError(f"{path.strip('.')} is a {kind}; only whole, dense tensors are stored")
        if tensor.dtype in STORED:
            return {"$tensor": self._tensor(tensor, path)}
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {"$raw": {"bytes": self._tensor(raw, path), "dtype": dtype, "shape": list(tensor.shape)}}

    def _tensor(self, tensor: torch.Tensor, path: str) -> str:
        key = _identity(tensor)
        if key not in self._names:
            self._names[key] = self._unused(path.strip(".") or "tensor")
            self.tensors[self._names[key]] = tensor.detach()
        return self._names[key]

    def _unused(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self.tensors:
            number += 1
            candidate = f"{name}#{number}"
        return candidate


def _identity(tensor: torch.Tensor) -> tuple[object, ...]:
    if tensor.numel() == 0:
        return (object(),)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def decode(node: Any, tensors: Tensors) -> Any:
    """The value that `Flattener.encode` was given."""
    if isinstance(node, list):
        return [decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    if len(node) == 1:
        ((kind, body),) = node.items()
        if kind.startswith("$"):
            return _special(kind, body, tensors)
    return {key: decode(item, tensors) for key, item in node.items()}


def _special(kind: str, body: Any, tensors: Tensors) -> Any:
    match kind:
        case "$tensor":
            return tensors[body]
        case "$raw":
            return tensors[body["bytes"]].view(getattr(torch, body["dtype"])).reshape(body["shape"])
        case "$float":
            return float(body)
        case "$bytes":
            return base64.b64decode(body)
        case "$dtype":
            return getattr(torch, body)
        case "$device":
            return torch.device(body)
        case "$array" | "$scalar":
            raw = tensors[body["bytes"]].numpy().tobytes()
            array = np.frombuffer(raw, dtype=np.dtype(body["dtype"])).reshape(body["shape"]).copy()
            return array if kind == "$array" else array[()]
    if kind in _TUPLE_OF:
        return _TUPLE_OF[kind](decode(item, tensors) for item in body)
    if kind == "$counter":
        return Counter({decode(key, tensors): decode(item, tensors) for key, item in body})
    return _DICT_OF[kind]((decode(key, tensors), decode(item, tensors)) for key, item in body)


_TUPLES: dict[type, str] = {tuple: "$tuple", torch.Size: "$size"}
_TUPLE_OF: dict[str, Any] = {"$tuple": tuple, "$size": lambda items: torch.Size(list(items))}
_DICTS: dict[type, str] = {dict: "$dict", OrderedDict: "$ordered", Counter: "$counter"}
_DICT_OF: dict[str, Any] = {"$dict": dict, "$ordered": OrderedDict}
