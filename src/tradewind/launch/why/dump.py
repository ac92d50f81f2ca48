"""Reading what `kubectl get ... -o json` printed: untrusted, so its size and every type are checked."""

import sys
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from tradewind.errors import SpecError
from tradewind.launch.why.kinds import KINDS, Node
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
        self.nodes = {node.metadata.name: node for node in self.all(Node)}
        self.complete: frozenset[str] = frozenset()
        """Kinds of which everything that matters is here: that there is none says something."""

    def all(self, kind: type[T], namespace: str | None = None) -> list[T]:
        """The objects of a kind, in the order of the dump."""
        name = next((name for name, known in KINDS.items() if known is kind), "")
        found = [item for item in self._by_kind.get(name, ()) if isinstance(item, kind)]
        return [item for item in found if namespace is None or item.metadata.namespace == namespace]

    def changed(self, kind: str, objects: list[Object]) -> "World":
        """The same world with other objects of one kind."""
        others = [item for name, found in self._by_kind.items() if name != kind for item in found]
        world = World(others + objects)
        world.complete = self.complete
        return world

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


class _Listing(msgspec.Struct):
    """A list of objects, not looked into yet."""

    kind: str = ""
    items: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


class _Typed(msgspec.Struct, Generic[T]):
    """A list of objects of one kind."""

    items: list[T] | None = None


class _Head(msgspec.Struct):
    kind: str | None = None


def decode_dump(data: bytes, source: str) -> World:
    """The objects in a `List`; raises SpecError that names the place in it."""
    if len(data) > LIMIT_MIB << 20:
        raise SpecError(
            f"{source}: larger than {LIMIT_MIB} MiB; ask kubectl for one namespace and the nodes only"
        )
    try:
        listing = msgspec.json.decode(data, type=_Listing)
    except msgspec.ValidationError as error:
        raise SpecError(f"{source}: is no List of objects ({error}); write it with {KUBECTL}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{source}: is not JSON ({error}); write it with {KUBECTL}") from None
    if listing.items is msgspec.UNSET:
        listing.items = [msgspec.Raw(data)]
    default = listing.kind.removesuffix("List")
    read = (_read(item, default, index, source) for index, item in enumerate(listing.items or ()))
    return World([known for known in read if known])


def _read(item: msgspec.Raw, default: str, index: int, source: str) -> Object | None:
    """One object; members of a `PodList` say nothing about their kind, which is then `default`."""
    kind = default
    try:
        kind = msgspec.json.decode(item, type=_Head).kind or default
        return _decode(item, kind, KINDS[kind]) if kind in KINDS else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = str(error).replace("`$", f"`items[{index}]")
        raise SpecError(f"{source}: items[{index}] ({kind or 'no kind'}): {text}") from None


def _decode(item: msgspec.Raw, kind: str, known: type[Object]) -> Object:
    """Go prints an empty list as null; here that is the same as absent, and seldom needed."""
    try:
        found = msgspec.json.decode(item, type=known)
    except msgspec.ValidationError:
        found = msgspec.convert(_without_nulls(msgspec.json.decode(item)), known)
    return found if found.kind else msgspec.structs.replace(found, kind=kind)


def decode_list(data: bytes, known: type[T], kind: str) -> list[T]:
    """The objects in the list that an API server answered with; raises msgspec.DecodeError."""
    try:
        found: list[Any] = msgspec.json.decode(data, type=_Typed[known]).items or []  # type: ignore[valid-type]
    except msgspec.ValidationError:
        found = [_decode(item, kind, known) for item in msgspec.json.decode(data, type=_Listing).items or ()]
    for item in found:  # In place: nobody else has them yet, and copies take as long as reading.
        msgspec.structs.force_setattr(item, "kind", kind)
    return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value if inner is not None]
    return value
