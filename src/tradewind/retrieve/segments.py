"""What an index holds at one instant: the built base, what came since, and what of both is gone.

All of it is immutable. A search takes one `State` and is not disturbed by what is written meanwhile.
"""

import math
import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tradewind.retrieve.attributes import Attributes, join
from tradewind.retrieve.columns import Mask, Positions
from tradewind.retrieve.filters import Filter, FilterError
from tradewind.retrieve.inverted import Allowed, Inverted
from tradewind.retrieve.plan import Profile

_KEPT_FILTERS = 64
PACKED_SHARE = 1 / 64
"""Of the items, the most that a filter may hold for their vectors to be kept side by side too. Read from all over the
table they take three times as long. All filters that are kept take no more memory than the table."""
_MERGE_RATIO = 4


class Subset:
    """The base's items that a filter holds; each form is made when first needed, and kept."""

    def __init__(self, base: "Base", mask: Mask) -> None:
        self._base = base
        self.bits = np.packbits(mask, bitorder="little")
        self.count = int(np.count_nonzero(mask))
        self._positions: Positions | None = None
        self._scanned = False
        self._packed: torch.Tensor | None = None
        self._dead: tuple[Dead, Mask | None] | None = None
        self._allowed: tuple[Dead, Allowed] | None = None

    def mask(self) -> Mask:
        """bool[N] by position."""
        return np.unpackbits(self.bits, count=len(self._base.vectors), bitorder="little").view(np.bool_)

    def positions(self) -> Positions:
        """int64[M], ascending."""
        if self._positions is None:
            self._positions = np.flatnonzero(self.mask())
        return self._positions

    def packed(self) -> torch.Tensor | None:
        """float32[M, D], the items' vectors alone, from the second call on; None where the filter holds too many."""
        if self._packed is None and self._scanned and self.count <= PACKED_SHARE * len(self._base.vectors):
            self._packed = torch.from_numpy(self._base.vectors[self.positions()])
        self._scanned = True
        return self._packed

    def banned(self, dead: "Dead") -> Mask | None:
        """bool[M] of its positions, true where the item is dead; None where none is."""
        if not dead.some:
            return None
        known = self._dead
        if known is None or known[0] is not dead:
            flags = dead.flags[self.positions()]
            known = self._dead = dead, flags if flags.any() else None
        return known[1]

    def allowed(self, inverted: Inverted, dead: "Dead") -> Allowed:
        """What probing may return. Dead items are still counted per list: `Dead.need` makes up for that."""
        known = self._allowed
        if known is None or known[0] is not dead:
            whole = known[1] if known is not None else inverted.allow(self.mask())
            bits = self.bits & dead.alive_bits if dead.removed else self.bits
            known = self._allowed = dead, Allowed(bits, whole.per_list, whole.grouped)
        return known[1]


class Dead(NamedTuple):
    """Base items that are not returned: bool[N], the inverse as bits, how many died since the base was built, and whether
    there is any at all.
    """

    flags: Mask
    alive_bits: npt.NDArray[np.uint8]
    removed: int
    some: bool

    @classmethod
    def of(cls, flags: Mask, removed: int) -> "Dead":
        return cls(flags, np.packbits(~flags, bitorder="little"), removed, bool(flags.any()))

    def need(self, need: int, num_base: int) -> int:
        """How many items to see, some of them dead, where so many that are alive are to be seen."""
        return math.ceil(need * num_base / max(1, num_base - self.removed))


class Base:
    """The built part: row i is the item at position i. The caches inside are safe to use from any thread.

    `num_changed` items changed since its centroids were trained.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.float32],
        attributes: Attributes | None,
        inverted: Inverted | None,
        profile: Profile | None,
        num_changed: int,
    ) -> None:
        self.vectors, self.table = vectors, torch.from_numpy(vectors)
        self.attributes, self.inverted, self.profile = attributes, inverted, profile
        self.num_changed = num_changed
        self._lock = threading.Lock()
        self._subsets: OrderedDict[Filter, Subset] = OrderedDict()
        self._seen: OrderedDict[Filter, None] = OrderedDict()

    def known(self, wanted: Filter) -> Subset | None:
        """The filter's items where it is compiled already."""
        with self._lock:
            if wanted in self._subsets:
                self._subsets.move_to_end(wanted)
            return self._subsets.get(wanted)

    def met(self, wanted: Filter) -> bool:
        """Whether the filter came before; it has now."""
        with self._lock:
            before = wanted in self._seen
            self._seen[wanted] = None
            if len(self._seen) > 8 * _KEPT_FILTERS:
                self._seen.popitem(last=False)
            return before

    def subset(self, wanted: Filter) -> Subset:
        """The filter's items, compiled now unless they are known; FilterError where the filter does not fit."""
        found = self.known(wanted)
        if found is None:
            found = Subset(self, attributes_of(self.attributes).mask(wanted))
            with self._lock:
                self._subsets[wanted] = found
                if len(self._subsets) > _KEPT_FILTERS:
                    self._subsets.popitem(last=False)
        return found


class Chunk:
    """Items that came after the base, always scored exactly; `alive` is false for those replaced or deleted since."""

    def __init__(
        self,
        positions: Positions,
        vectors: npt.NDArray[np.float32],
        attributes: Attributes | None,
        alive: Mask,
    ) -> None:
        self.positions, self.vectors, self.attributes, self.alive = positions, vectors, attributes, alive
        self.table = torch.from_numpy(vectors)
        self.num_alive = int(np.count_nonzero(alive))

    def without(self, positions: Positions) -> "Chunk":
        """This chunk with the items at `positions` dead."""
        gone = np.isin(self.positions, positions) & self.alive
        if not gone.any():
            return self
        return Chunk(self.positions, self.vectors, self.attributes, self.alive & ~gone)

    def banned(self, wanted: Filter | None) -> Mask | None:
        """Rows that a search does not return; None where it may return all."""
        if wanted is None:
            return None if self.num_alive == len(self.positions) else ~self.alive
        return ~(attributes_of(self.attributes).mask(wanted) & self.alive)

    def only(self, keep: Mask) -> "Chunk":
        """The rows of a mask, all alive."""
        rows = np.flatnonzero(keep)
        attributes = None if self.attributes is None else self.attributes.take(rows)
        return Chunk(self.positions[rows], self.vectors[rows], attributes, np.ones(len(rows), dtype=np.bool_))


class State(NamedTuple):
    """Everything a search reads."""

    base: Base
    dead: Dead
    chunks: tuple[Chunk, ...]
    num_items: int

    @property
    def num_fresh(self) -> int:
        return sum(len(chunk.positions) for chunk in self.chunks)


def compact(chunks: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    """Merge from the newest on while a chunk is not four times as large as what follows it; drops the dead."""
    kept = [chunk for chunk in chunks if chunk.num_alive]
    while len(kept) > 1 and len(kept[-2].positions) < _MERGE_RATIO * len(kept[-1].positions):
        kept[-2:] = [merged(kept[-2:])]
    return tuple(kept)


def merged(chunks: "list[Chunk]") -> Chunk:
    """One chunk of the live rows of several."""
    parts = [chunk.only(chunk.alive) for chunk in chunks]
    attributes = [part.attributes for part in parts if part.attributes is not None]
    return Chunk(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        join(attributes) if attributes else None,
        np.concatenate([part.alive for part in parts]),
    )


def attributes_of(attributes: Attributes | None) -> Attributes:
    """The attributes, or FilterError where the index was built without."""
    if attributes is None:
        raise FilterError("filter: this index has no attributes; build it with `attributes=`")
    return attributes
