"""Reading what `kubectl get ... -o json` printed: untrusted, so its size and every type are checked."""

from __future__ import annotations

import sys

from tradewind.errors import SpecError
from tradewind.launch.why.kinds import KINDS, Node
from tradewind.launch.why.part import NotPlain, part, text
from tradewind.launch.why.pods import Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T", bound=Object)

LIMIT_MIB = 512
"""More than a cluster of 5,000 nodes prints, and less than fits into a laptop's memory."""
KUBECTL = (
    "kubectl get -o json jobs,pods,nodes,events,resourcequotas,persistentvolumeclaims,configmaps,"
    "serviceaccounts,priorityclasses,services (and podgroups, workloads, localqueues, clusterqueues if the "
    "cluster has them)"
)
QUICK_BYTES = 1 << 20
"""Up to here reading without msgspec is quicker than importing it."""


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

    def changed(self, kind: str, objects: list[Object]) -> World:
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
    try:
        with open(path, "rb") as stream:
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
    found = quick(data) if len(data) <= QUICK_BYTES else None
    if found is None:
        from tradewind.launch.why.typed import decode_listing

        found = decode_listing(data, source, KUBECTL)
    return World(found)


def quick(data: bytes) -> list[Object] | None:
    """The objects in a `List` of which everything is as it should be; None for any other."""
    import json

    if b"\\ud" in data.lower():
        return None  # Half a character, perhaps: json takes it for one.
    try:
        return _listed(json.loads(data.decode(), parse_constant=_declined))
    except (NotPlain, ValueError, RecursionError):
        return None


def _listed(listing: Any) -> list[Object]:
    if type(listing) is not dict:
        raise NotPlain
    items = listing.get("items", [listing])
    if type(items) is not list:
        raise NotPlain
    default = text(listing.get("kind", "")).removesuffix("List")
    return [known for item in items if (known := _read(item, default))]


def _declined(constant: str) -> Any:
    """NaN and the infinities are no JSON."""
    raise NotPlain


def _read(item: Any, default: str) -> Object | None:
    """One object; members of a `PodList` say nothing about their kind, which is then `default`."""
    if type(item) is not dict:
        raise NotPlain
    said = item.get("kind")
    kind = default if said is None else text(said) or default
    return part(KINDS[kind], item | {"kind": kind}) if kind in KINDS else None
