"""Filters in the front process: held against the items' attributes, and asked of the popular items; no torch.

A request's filter travels as it was written, JSON of at most 64 KiB: bytes beside the row of each of its users.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tradewind.retrieve import Filter, FilterError, decode_filter
from tradewind.serve.errors import RequestError
from tradewind.serve.wire import Attribute

if TYPE_CHECKING:
    from tradewind.retrieve.attributes import Attributes

FILTER, FILTER_BYTES = "filter", "filter_bytes"
"""Tensors of a batch: the JSON of all users UINT8 [S], and how much of it is whose INT64 [B]; 0 for no filter."""
_CACHED = 64

decoded = lru_cache(_CACHED)(decode_filter)
"""`decode_filter`, by what was decoded last."""


class ItemFilters:
    """What the front process knows of the items: the kind of each attribute, and the popular items' values."""

    def __init__(
        self, attributes: Mapping[str, Attribute] | None = None, popular: Sequence[int] = ()
    ) -> None:
        """`attributes` are of the items at the positions `popular`, in their order."""
        self.declared = bool(attributes)
        self._popular = tuple(popular)
        self._attributes = _columns(attributes or {})
        self._held = lru_cache(_CACHED)(self._find)

    def check(self, raw: bytes) -> bytes:
        """Return a filter's JSON when items can be asked it; nothing for null. Raises RequestError (400) naming the field."""
        if raw.strip() == b"null":
            return b""
        try:
            self._held(raw)
        except FilterError as error:
            raise RequestError(400, str(error)) from None
        return raw

    def popular(self, raw: bytes) -> tuple[int, ...]:
        """Return the popular items that a filter holds, best first; all of them without one."""
        return self._held(raw) if raw else self._popular

    def _find(self, raw: bytes) -> tuple[int, ...]:
        held = self._attributes.mask(decoded(raw)).tolist()
        return tuple(position for position, holds in zip(self._popular, held, strict=True) if holds)


def described(attributes: "Attributes") -> dict[str, Attribute]:
    """What to tell the front process of some items' attributes."""
    return {
        field: Attribute(column.kind, tuple(column.plain())) for field, column in attributes.columns.items()
    }


def by_row(data: bytes, lengths: Sequence[int]) -> list[bytes]:
    """Cut the filters of a batch into each user's; b"" for none."""
    cut, start = [], 0
    for length in lengths:
        cut.append(data[start : start + length])
        start += length
    return cut


def filters_of(data: bytes, lengths: Sequence[int]) -> list[Filter | None] | None:
    """Return the filter of each user of a batch; None when nobody has one."""
    if not data:
        return None
    return [decoded(raw) if raw else None for raw in by_row(data, lengths)]


def _columns(attributes: Mapping[str, Attribute]) -> "Attributes":
    from tradewind.retrieve.attributes import Attributes, of_kind

    return Attributes({field: of_kind(field, a.kind, a.values) for field, a in attributes.items()})
