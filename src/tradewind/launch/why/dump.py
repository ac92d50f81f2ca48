"""Reading what `kubectl get ... -o json` printed: untrusted, so its size and every type are checked."""

import sys
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tradewind.errors import SpecError
from tradewind.launch.why.kinds import KINDS
from tradewind.launch.why.pods import Object

LIMIT_MIB = 512
"""More than a cluster of 5,000 nodes prints, and less than fits into a laptop's memory."""
KUBECTL = (
    "kubectl get -o json jobs,pods,nodes,events,resourcequotas,persistentvolumeclaims,configmaps,"
    "serviceaccounts,priorityclasses,services (and podgroups, workloads, localqueues, clusterqueues if the "
    "cluster has them)"
)
T = TypeVar("T", bound=Object)


class World:
    """The objects of a dump, by kind and namespace."""

    def __init__(self, objects: list[Object]) -> None:
        self._by_kind: dict[str, list[Object]] = {}
        for item in objects:
            self._by_kind.setdefault(item.kind, []).append(item)

    def all(self, kind: type[T], namespace: str | None = None) -> list[T]:
        """The objects of a kind, in the order of the dump."""
        name = next((name for name, known in KINDS.items() if known is kind), "")
        found = [item for item in self._by_kind.get(name, ()) if isinstance(item, kind)]
        return [item for item in found if namespace is None or item.metadata.namespace == namespace]

    def names(self, kind: str, namespace: str = "") -> frozenset[str]:
        """The names of a kind's objects; empty as well when the dump holds none of that kind."""
        found = self._by_kind.get(kind, ())
        return frozenset(item.metadata.name for item in found if item.metadata.namespace == namespace)

    def lacks(self, kind: str, name: str, namespace: str = "") -> bool:
        """Whether an object is missing from the cluster, not merely from a dump without that kind."""
        known = self.names(kind, namespace)
        return bool(known) and name not in known


def read_dump(path: str) -> World:
    """The objects in a file, or on standard input for `-`; raises SpecError."""
    if path == "-":
        return decode_dump(sys.stdin.buffer.read((LIMIT_MIB << 20) + 1), "standard input")
    file = Path(path)
    try:
        with file.open("rb") as stream:
            return decode_dump(stream.read((LIMIT_MIB << 20) + 1), path)
    except OSError as error:
        raise SpecError(
            f"--from {path}: cannot be read ({error.strerror}); write one with {KUBECTL}"
        ) from None


def decode_dump(data: bytes, source: str) -> World:
    """The objects in a `List`; raises SpecError that names the place in it."""
    if len(data) > LIMIT_MIB << 20:
        raise SpecError(
            f"{source}: larger than {LIMIT_MIB} MiB; ask kubectl for one namespace and the nodes only"
        )
    try:
        items = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{source}: is not JSON ({error}); write it with {KUBECTL}") from None
    return World(
        [known for index, item in enumerate(_items(items, source)) if (known := _read(item, index, source))]
    )


def _items(decoded: Any, source: str) -> list[Any]:
    """The objects of a list; a lone object is a list of one."""
    if not isinstance(decoded, dict):
        raise SpecError(
            f"{source}: expected an object of kind List, got {type(decoded).__name__}; write it with {KUBECTL}"
        )
    if "items" not in decoded:
        return [decoded]
    items = decoded["items"]
    if items is None:
        return []
    if not isinstance(items, list):
        raise SpecError(f"{source}: items: expected a list, got {type(items).__name__}")
    return _typed(items, str(decoded.get("kind", "")))


def _typed(items: list[Any], kind: str) -> list[Any]:
    """Members of a `PodList` say nothing about their kind."""
    if kind in ("", "List") or not kind.endswith("List"):
        return items
    return [{"kind": kind.removesuffix("List")} | item if isinstance(item, dict) else item for item in items]


def _read(item: Any, index: int, source: str) -> Object | None:
    if not isinstance(item, dict):
        raise SpecError(f"{source}: items[{index}]: expected an object, got {type(item).__name__}")
    kind = item.get("kind")
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        return None
    try:
        return msgspec.convert(_without_nulls(item), known)
    except (msgspec.ValidationError, RecursionError) as error:
        text = str(error).replace("`$", f"`items[{index}]")
        raise SpecError(f"{source}: items[{index}] ({kind}): {text}") from None


def _without_nulls(value: Any) -> Any:
    """Go prints an empty list as null; here that is the same as absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value if inner is not None]
    return value
