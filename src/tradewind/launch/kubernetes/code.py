"""A snapshot as compressed parts that fit into ConfigMaps, and as little of it as the cluster lacks."""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from tradewind.errors import SpecError
from tradewind.launch.kubernetes.unpack import EXEC, FILE, GONE, LINK, leaves
from tradewind.launch.tree import Entry, changes, read_tree

if TYPE_CHECKING:
    from tradewind.store import Blobs

PART_BYTES = 900 * 1024
"""Of one ConfigMap: the API allows 1 MiB of data and the etcd behind it 1.5 MiB with everything around."""
MAX_PARTS = 16
"""Of one snapshot: about 14 MiB compressed. More belongs into an object store, not into etcd."""
MAX_LAYERS = 8
"""Then the next snapshot is packed afresh; every pod inflates every layer."""

Layers = tuple[tuple[str, ...], ...]
"""The names of the parts of each layer, oldest layer first."""


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot ready to travel."""

    digest: str
    layers: Layers = ()
    """Empty when pods fetch the snapshot from a blob store themselves."""
    parts: dict[str, bytes] = {}
    """The parts of its newest layer, by name: what may have to be moved."""
    max_bytes: int = 0
    """No layer inflates to more than this."""

    @property
    def names(self) -> list[str]:
        """Every part that a pod needs."""
        return [name for layer in self.layers for name in layer]


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier snapshot whose parts are on the cluster."""

    digest: str
    layers: Layers
    max_bytes: int


class TooLarge(SpecError):
    """The code does not fit into ConfigMaps."""


def pack(digest: str, blobs: "Blobs", base: Base | None = None) -> Code:
    """The snapshot as layers; with a `base` only what differs from it, in one layer on top.

    Raises SpecError when it is too large for ConfigMaps or has a link out of the project.
    """
    if base is not None and base.digest == digest:
        return Code(digest=digest, layers=base.layers, max_bytes=base.max_bytes)
    if base is not None and len(base.layers) < MAX_LAYERS:
        code = extend(digest, blobs, base)
        if len(code.names) <= MAX_PARTS:
            return code
    tree = read_tree(digest, blobs)
    check_links(tree.entries)
    raw = layer(tree.entries, (), blobs)
    parts = split(raw)
    if len(parts) > MAX_PARTS:
        raise TooLarge(
            f"the code is {sum(map(len, parts.values())) / 2**20:.0f} MiB compressed and ConfigMaps hold "
            f"{MAX_PARTS * PART_BYTES / 2**20:.0f} MiB of it; list what is not code in .gitignore, or name "
            "an object store in `blobs` of the context"
        )
    return Code(digest=digest, layers=(tuple(parts),), parts=parts, max_bytes=len(raw))


def extend(digest: str, blobs: "Blobs", base: Base) -> Code:
    """`base` and, on top of it, what changed since; what it shares with `base` was checked then."""
    changed, gone = changes(base.digest, digest, blobs)
    check_links(changed)
    raw = layer(changed, gone, blobs)
    parts = split(raw)
    limit = max(base.max_bytes, len(raw))
    return Code(digest=digest, layers=(*base.layers, tuple(parts)), parts=parts, max_bytes=limit)


def check_links(entries: Iterable[Entry]) -> None:
    """Refuse links that lead out of the project: in a pod they would lead elsewhere, or nowhere."""
    for item in entries:
        if item.link is not None and leaves(item.path, item.link):
            raise SpecError(
                f"{item.path} is a link to {item.link}, outside of the project, where pods have something else; "
                "list it in .gitignore and mount what it points to as a volume of the context"
            )


def layer(entries: Iterable[Entry], gone: Sequence[str], blobs: "Blobs") -> bytes:
    """One layer's bytes, as `unpack.py` describes them; the same entries always give the same."""
    listed: list[tuple[str, str, int | str]] = [(path, GONE, 0) for path in gone]
    content = []
    for item in entries:
        if item.link is not None:
            listed.append((item.path, LINK, item.link))
        else:
            listed.append((item.path, EXEC if item.executable else FILE, item.size))
            content.append(blobs.get(item.digest))
    head = msgspec.json.encode(listed)
    return b"".join([len(head).to_bytes(8, "big"), head, *content])


def split(raw: bytes) -> dict[str, bytes]:
    """A layer compressed and cut to the size of a ConfigMap; each part's name is made from its content."""
    data = zlib.compress(raw, 6)
    cut = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    return {f"tradewind-code-{hashlib.sha256(piece).hexdigest()[:32]}": piece for piece in cut}
