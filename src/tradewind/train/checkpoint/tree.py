"""Nested state as JSON beside named tensors, and back, exactly.

What JSON lacks is an object with one key that begins with `$`: tuples, dicts with other keys than
strings, bytes, floats that are not finite, and references to tensors.
"""

import base64
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch

from tradewind.errors import TradewindError
from tradewind.train.checkpoint.rows import Rows, share_of

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

_PLAIN = frozenset({type(None), bool, int, str})
_SHARDED = ("$rows", "$dtensor")


@dataclass(frozen=True)
class Place:
    """Where the rows that this worker holds lie in a tensor of which others hold the rest."""

    start: int
    shape: tuple[int, ...]


class Flattener:
    """Turns state into JSON, collecting its tensors; a tensor met twice is stored once."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        """What this worker holds, by name."""
        self.places: dict[str, Place] = {}
        """Of the tensors that are cut over the workers."""
        self._met: dict[int, list[str]] = {}

    def encode(self, value: Any, path: str = "") -> Any:
        """JSON for the value; a TradewindError names the path of what cannot be stored."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if kind is torch.Tensor:
            return self._stored(value, path)
        if kind in _DICTS:
            return self._dict(value, path)
        if kind is list:
            return self._items(value, path)
        if kind in _TUPLES:
            return {_TUPLES[kind]: self._items(value, path)}
        return self._rare(value, path)

    def _items(self, value: Any, path: str) -> list[Any]:
        if _PLAIN.issuperset(map(type, value)):
            return list(value)
        return [self.encode(item, f"{path}.{index}") for index, item in enumerate(value)]

    def _dict(self, value: Mapping[Any, Any], path: str) -> Any:
        plain = type(value) is dict
        if plain and all(type(key) is str and key[:1] != "$" for key in value):
            return {
                key: item if type(item) in _PLAIN else self.encode(item, f"{path}.{key}")
                for key, item in value.items()
            }
        pairs = [[self.encode(key, path), self.encode(item, f"{path}.{key}")] for key, item in value.items()]
        return {_DICTS[type(value)]: pairs}

    def _rare(self, value: Any, path: str) -> Any:
        if isinstance(value, Rows):
            return self._rows(value, path)
        if isinstance(value, torch.Tensor):
            return self._dtensor(value, path) if hasattr(value, "placements") else self._stored(value, path)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, path)
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

    def _array(self, value: Any, path: str) -> Any:
        if value.dtype.hasobject or value.dtype.names:
            raise TradewindError(f"{path.strip('.')} is a numpy array of {value.dtype}: not plain numbers")
        raw = torch.from_numpy(np.frombuffer(value.tobytes(), dtype=np.uint8).copy())
        name = self._tensor(raw, path)
        kind = "$array" if isinstance(value, np.ndarray) else "$scalar"
        return {kind: {"bytes": name, "dtype": value.dtype.str, "shape": list(value.shape)}}

    def _stored(self, tensor: torch.Tensor, path: str) -> Any:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            kind = f"{type(tensor).__name__} of layout {tensor.layout} on {tensor.device}"
            raise TradewindError(f"{path.strip('.')} is a {kind}; only dense tensors with data are stored")
        if tensor.dtype in STORED:
            return {"$tensor": self._tensor(tensor, path)}
        whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        name = self._tensor(whole.reshape(-1).view(torch.uint8), path)
        return {"$raw": {"bytes": name, "dtype": dtype, "shape": list(tensor.shape)}}

    def _rows(self, rows: Rows, path: str) -> Any:
        shape = (rows.total, *rows.local.shape[1:])
        if rows.local.ndim == 0 or not 0 <= rows.start <= rows.stop <= rows.total:
            raise TradewindError(
                f"{path.strip('.')}: rows {rows.start} and on of {rows.total} cannot be a tensor of shape "
                f"{tuple(rows.local.shape)}"
            )
        return {"$rows": self._part(rows.local, Place(rows.start, shape), path)}

    def _dtensor(self, tensor: Any, path: str) -> Any:
        if tensor.device_mesh.ndim != 1 or not (
            tensor.placements[0].is_shard(0) or tensor.placements[0].is_replicate()
        ):
            raise TradewindError(
                f"{path.strip('.')} is a DTensor with placements {tensor.placements}; only Shard(0) and "
                "Replicate() on a mesh of one dimension are stored"
            )
        with torch.no_grad():
            local = tensor.to_local()
        shape = tuple(tensor.shape)
        if tensor.placements[0].is_replicate():
            return {"$dtensor": self._described(self._tensor(local, path), local, shape) | {"whole": True}}
        mesh = tensor.device_mesh
        start, _ = share_of(shape[0], mesh.get_local_rank(), mesh.size())
        return {"$dtensor": self._part(local, Place(start, shape), path)}

    def _part(self, local: torch.Tensor, place: Place, path: str) -> dict[str, Any]:
        if local.dtype not in STORED:
            raise TradewindError(f"{path.strip('.')}: a sharded tensor of {local.dtype} cannot be stored")
        name = self._tensor(local, path)
        self.places[name] = place
        return self._described(name, local, place.shape)

    @staticmethod
    def _described(name: str, local: torch.Tensor, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"tensor": name, "dtype": STORED[local.dtype], "shape": list(shape)}

    def _tensor(self, tensor: torch.Tensor, path: str) -> str:
        pointer = tensor.data_ptr()
        names = self._met.setdefault(pointer, []) if pointer else []
        for name in names:
            if _same(self.tensors[name], tensor):
                return name
        name = self._unused(path[1:] or "tensor")
        names.append(name)
        self.tensors[name] = tensor.detach() if tensor.requires_grad else tensor
        return name

    def _unused(self, name: str) -> str:
        candidate, number = name, 1
        # A name that ends like a slice's would be read as rows of another tensor.
        while candidate in self.tensors or candidate.endswith("]"):
            number += 1
            candidate = f"{name}#{number}"
        return candidate


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and left.stride() == right.stride()
        and left.device == right.device
    )


def to_json(tree: Any) -> bytes:
    """The JSON text of what `encode` gave."""
    try:
        return msgspec.json.encode(tree)
    except (OverflowError, UnicodeError):
        # Integers beyond 64 bits and lone surrogates, which the faster encoder does not write.
        return json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()


def sharded(node: Any) -> dict[str, dict[str, Any]]:
    """What the JSON says of the tensors that are cut over the workers, by name."""
    found: dict[str, dict[str, Any]] = {}
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            kind = next(iter(node)) if len(node) == 1 else None
            if kind in _SHARDED:
                found[node[kind]["tensor"]] = node[kind] | {"kind": kind}
            else:
                stack.extend(node.values())
    return found


def decode(node: Any, tensors: Mapping[str, Any]) -> Any:
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


def _special(kind: str, body: Any, tensors: Mapping[str, Any]) -> Any:
    match kind:
        case "$tensor":
            return tensors[body]
        case "$rows" | "$dtensor":
            return tensors[body["tensor"]]
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
