"""What a search may ask of an item's attributes: typed, bounded, and decodable from a request's JSON.

A filter is a set: an item without a value is in no `eq`, `in`, `range`, `flag` or `tags`, and is therefore in their `not`.
"""

import datetime
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from tradewind.errors import SpecError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_NODES = 256
MAX_VALUES = 4096

Value: TypeAlias = str | int | float
Bound: TypeAlias = float | datetime.datetime


class FilterError(SpecError, ValueError):
    """A filter is malformed, too large, or asks for a field the items do not have; names the place in it."""


class _Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    pass


class Equal(_Node, frozen=True, tag="eq"):
    """The category or number `field` is `value`."""

    field: str
    value: Value


class In(_Node, frozen=True, tag="in"):
    """The category or number `field` is one of `values`."""

    field: str
    values: tuple[Value, ...]


class Range(_Node, frozen=True, tag="range"):
    """`min` <= the number or time `field` <= `max`; a time is RFC 3339 text or seconds since 1970 (UTC)."""

    field: str
    min: Bound | None = None
    max: Bound | None = None


class Flag(_Node, frozen=True, tag="flag"):
    """The boolean `field` is `value`."""

    field: str
    value: bool = True


class Tags(_Node, frozen=True, tag="tags"):
    """The multi-valued `field` holds at least one of `any` (where given) and every one of `all`."""

    field: str
    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()


class And(_Node, frozen=True, tag="and"):
    """In every one of `filters`."""

    filters: tuple["Filter", ...]


class Or(_Node, frozen=True, tag="or"):
    """In at least one of `filters`."""

    filters: tuple["Filter", ...]


class Not(_Node, frozen=True, tag="not"):
    """Not in `filter`."""

    filter: "Filter"


Filter: TypeAlias = Equal | In | Range | Flag | Tags | And | Or | Not
Leaf: TypeAlias = Equal | In | Range | Flag | Tags

_DECODER = msgspec.json.Decoder(Filter)


def decode_filter(data: bytes | str) -> Filter:
    """The filter in JSON text, within the bounds of this module; raises FilterError naming what is wrong and where."""
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise FilterError(f"filter: {len(raw)} bytes of JSON; at most {MAX_BYTES} are read")
    try:
        found: Filter = _DECODER.decode(raw)
    except RecursionError:
        raise FilterError(f"filter: nested more than {MAX_DEPTH} deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FilterError(f"filter: {str(error).replace('`$', '`filter')}") from None
    check_filter(found)
    return found


def check_filter(found: Filter) -> None:
    """Raise FilterError when a filter, however it was built, is past this module's bounds or says nothing."""
    num_values = 0
    for num_nodes, (path, depth, node) in enumerate(_walk(found), 1):
        num_values += len(_values(node))
        if depth > MAX_DEPTH:
            raise FilterError(f"filter: nested more than {MAX_DEPTH} deep")
        if num_nodes > MAX_NODES:
            raise FilterError(f"filter: more than {MAX_NODES} conditions")
        if num_values > MAX_VALUES:
            raise FilterError(f"filter: more than {MAX_VALUES} values; make a flag or a tag of them")
        if problem := _problem(node):
            raise FilterError(f"{path}: {problem}")


def _walk(root: Filter) -> Iterator[tuple[str, int, Filter]]:
    """Every node with its path and depth; its own stack, so depth costs no recursion."""
    waiting: list[tuple[str, int, Filter]] = [("filter", 1, root)]
    while waiting:
        path, depth, node = waiting.pop()
        yield path, depth, node
        if isinstance(node, And | Or):
            inside = [(f"{path}.filters[{i}]", depth + 1, part) for i, part in enumerate(node.filters)]
            waiting.extend(reversed(inside))
        elif isinstance(node, Not):
            waiting.append((f"{path}.filter", depth + 1, node.filter))


def _values(node: Filter) -> tuple[Any, ...]:
    if isinstance(node, In):
        return node.values
    return (*node.any, *node.all) if isinstance(node, Tags) else ()


def _problem(node: Filter) -> str | None:
    if isinstance(node, Range):
        return _range_problem(node)
    if isinstance(node, Tags) and not (node.any or node.all):
        return f"tags of {node.field!r} needs `any` or `all`"
    if isinstance(node, And | Or) and not node.filters:
        return "an empty list of filters says nothing; leave the filter out"
    return None


def _range_problem(node: Range) -> str | None:
    low, high = bound(node.min), bound(node.max)
    if low is None and high is None:
        return f"range of {node.field!r} needs `min` or `max`"
    if low is not None and high is not None and not low <= high:
        return f"range of {node.field!r} has min {node.min} above max {node.max}"
    return None


def bound(value: Bound | None) -> float | None:
    """A bound as a number; a time as seconds since 1970, taken as UTC where it names no zone."""
    if not isinstance(value, datetime.datetime):
        return value
    aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    return aware.timestamp()
