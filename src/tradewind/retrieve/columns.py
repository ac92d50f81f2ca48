"""An attribute of every item as one array, and the items that a condition on it holds."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from tradewind.retrieve.filters import Equal, FilterError, Flag, In, Leaf, Range, Tags, bound

Mask: TypeAlias = npt.NDArray[np.bool_]
Positions: TypeAlias = npt.NDArray[np.int64]
_NONE = -1


class Column(Protocol):
    """One attribute; row i is item i's."""

    @property
    def kind(self) -> str:
        """category, number, flag or tags."""
        ...

    def __len__(self) -> int: ...

    def mask(self, leaf: Leaf, rows: Positions | None = None) -> Mask:
        """Which items (of `rows`, where given) the condition holds for; FilterError where it is not one for this kind."""

    def take(self, rows: Positions) -> "Column":
        """These rows, in this order."""

    def plain(self) -> list[Any]:
        """The values as Python has them, None where there is none."""


@dataclasses.dataclass(frozen=True, eq=False)
class Category:
    """One text per item: codes int32[N] into `names`, -1 for none."""

    codes: npt.NDArray[np.int32]
    names: dict[str, int]
    kind: ClassVar[str] = "category"

    def __len__(self) -> int:
        return len(self.codes)

    def mask(self, leaf: Leaf, rows: Positions | None = None) -> Mask:
        codes = self.codes if rows is None else self.codes[rows]
        if isinstance(leaf, Equal):
            return np.equal(codes, self._code(leaf.field, leaf.value))
        if isinstance(leaf, In):
            wanted = {self._code(leaf.field, value) for value in leaf.values} - {len(self.names)}
            return _member(codes, wanted, len(self.names))
        raise _unfit(leaf, self.kind, "eq or in")

    def take(self, rows: Positions) -> "Category":
        return Category(self.codes[rows], self.names)

    def plain(self) -> list[Any]:
        names = [*self.names]
        return [None if code == _NONE else names[code] for code in self.codes.tolist()]

    def _code(self, field: str, value: Any) -> int:
        if not isinstance(value, str):
            raise FilterError(f"filter: {field!r} is a category of text, not {value!r}")
        return self.names.get(value, len(self.names))


@dataclasses.dataclass(frozen=True, eq=False)
class Number:
    """One number per item: int64[N], or float64[N] with NaN for none; times are seconds since 1970."""

    values: npt.NDArray[Any]
    kind: ClassVar[str] = "number"

    def __len__(self) -> int:
        return len(self.values)

    def mask(self, leaf: Leaf, rows: Positions | None = None) -> Mask:
        values = self.values if rows is None else self.values[rows]
        if isinstance(leaf, Range):
            return _between(values, bound(leaf.min), bound(leaf.max))
        if isinstance(leaf, Equal | In):
            wanted = (leaf.value,) if isinstance(leaf, Equal) else leaf.values
            for value in wanted:
                if isinstance(value, str):
                    raise FilterError(f"filter: {leaf.field!r} is a number, not {value!r}")
            return np.isin(values, np.asarray(wanted))
        raise _unfit(leaf, self.kind, "eq, in or range")

    def take(self, rows: Positions) -> "Number":
        return Number(self.values[rows])

    def plain(self) -> list[Any]:
        return [None if value != value else value for value in self.values.tolist()]


@dataclasses.dataclass(frozen=True, eq=False)
class Boolean:
    """One flag per item: bool[N]."""

    values: Mask
    kind: ClassVar[str] = "flag"

    def __len__(self) -> int:
        return len(self.values)

    def mask(self, leaf: Leaf, rows: Positions | None = None) -> Mask:
        if not isinstance(leaf, Flag):
            raise _unfit(leaf, self.kind, "flag")
        values = self.values if rows is None else self.values[rows]
        return values.copy() if leaf.value else ~values

    def take(self, rows: Positions) -> "Boolean":
        return Boolean(self.values[rows])

    def plain(self) -> list[Any]:
        return list(self.values.tolist())


@dataclasses.dataclass(frozen=True, eq=False)
class Multi:
    """Any number of texts per item: those of item i are codes[offsets[i]:offsets[i + 1]], into `names`."""

    offsets: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]
    names: dict[str, int]
    kind: ClassVar[str] = "tags"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def mask(self, leaf: Leaf, rows: Positions | None = None) -> Mask:
        if not isinstance(leaf, Tags):
            raise _unfit(leaf, self.kind, "tags")
        column = self if rows is None else self.take(rows)
        held = np.ones(len(column), dtype=np.bool_)
        if leaf.any:
            held &= column.with_any(leaf.any)
        for tag in leaf.all:
            held &= column.with_any((tag,))
        return held

    def with_any(self, tags: Iterable[str]) -> Mask:
        """Which items hold at least one of `tags`."""
        wanted = {self.names[tag] for tag in tags if tag in self.names}
        held = np.zeros(len(self), dtype=np.bool_)
        where = np.flatnonzero(_member(self.codes, wanted, len(self.names)))
        held[np.searchsorted(self.offsets, where, side="right") - 1] = True
        return held

    def take(self, rows: Positions) -> "Multi":
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Multi(offsets, self.codes[np.repeat(self.offsets[rows], lengths) + inside], self.names)

    def plain(self) -> list[Any]:
        names = [*self.names]
        texts = [names[code] for code in self.codes.tolist()]
        ends = self.offsets.tolist()
        return [texts[a:b] for a, b in itertools.pairwise(ends)]


def column_of(name: str, values: Any) -> Column:
    """The column that `values` is: texts, numbers, times, booleans, or a list of texts per item.

    Takes numpy arrays, sequences (None for no value) and tensors. Raises FilterError naming the column.
    """
    if isinstance(values, Category | Number | Boolean | Multi):
        return values
    if not hasattr(values, "dtype"):
        return _of_objects(name, list(values))
    array = np.asarray(values)
    if array.ndim != 1:
        raise FilterError(f"attribute {name!r} has shape {list(array.shape)}; give one value per item")
    if array.dtype == object:
        return _of_objects(name, array.tolist())
    if array.dtype == np.bool_:
        return Boolean(array)
    if array.dtype.kind == "U":
        return _category(array.tolist())
    if array.dtype.kind == "M":
        return Number(_seconds(array))
    if array.dtype.kind in "iu":
        return Number(array.astype(np.int64))
    if array.dtype.kind == "f":
        return Number(array.astype(np.float64))
    raise FilterError(
        f"attribute {name!r} is {array.dtype}; give texts, numbers, times, booleans or lists of texts"
    )


def joined(parts: Sequence[Column]) -> Column:
    """The rows of several columns of one kind, one after another."""
    first = parts[0]
    if isinstance(first, Boolean | Number):
        values = [cast(Boolean | Number, part).values for part in parts]
        return type(first)(np.concatenate(values))
    names: dict[str, int] = {}
    codes = np.concatenate([_recoded(part, names) for part in parts])
    if isinstance(first, Category):
        return Category(codes, names)
    lengths = np.concatenate([np.diff(cast(Multi, part).offsets) for part in parts])
    return Multi(np.concatenate([[0], np.cumsum(lengths)]), codes, names)


def _recoded(part: Any, names: dict[str, int]) -> npt.NDArray[np.int32]:
    """A part's codes in the joint `names`, which grows by the part's own."""
    codes = [names.setdefault(name, len(names)) for name in part.names]
    table = np.array([*codes, _NONE], dtype=np.int32)
    return cast(npt.NDArray[np.int32], table[part.codes])


def _of_objects(name: str, values: list[Any]) -> Column:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in present):
        if len(present) < len(values):
            raise FilterError(f"attribute {name!r}: a flag is true or false, never absent")
        return Boolean(np.array(values, dtype=np.bool_))
    if all(isinstance(value, str) for value in present):
        return _category(values)
    if all(isinstance(value, list | tuple | np.ndarray) for value in present):
        return _multi(name, [() if value is None else value for value in values])
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return Number(np.array(values, dtype=np.int64))
    try:
        return Number(
            np.array([np.nan if value is None else _number(value) for value in values], dtype=np.float64)
        )
    except (TypeError, ValueError):
        raise FilterError(f"attribute {name!r} mixes kinds of values; give every item the same") from None


def _number(value: Any) -> float:
    if isinstance(value, bool | str):
        raise TypeError
    seconds = bound(value)
    return float(value if seconds is None else seconds)


def _category(values: Sequence[str | None]) -> Category:
    names: dict[str, int] = {}
    codes = [_NONE if value is None else names.setdefault(value, len(names)) for value in values]
    return Category(np.array(codes, dtype=np.int32), names)


def _multi(name: str, values: Sequence[Sequence[str]]) -> Multi:
    names: dict[str, int] = {}
    flat = [tag for tags in values for tag in tags]
    if not all(isinstance(tag, str) for tag in flat):
        raise FilterError(f"attribute {name!r}: tags are texts")
    codes = np.array([names.setdefault(str(tag), len(names)) for tag in flat], dtype=np.int32)
    lengths = [len(tags) for tags in values]
    return Multi(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), codes, names)


def _seconds(times: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    seconds = times.astype("datetime64[us]").astype(np.int64) / 1e6
    seconds[np.isnat(times)] = np.nan
    return seconds


def _between(values: npt.NDArray[Any], low: float | None, high: float | None) -> Mask:
    held: Mask = values >= low if low is not None else values <= high
    if low is not None and high is not None:
        held &= values <= high
    return held


def _member(codes: npt.NDArray[np.int32], wanted: set[int], num_names: int) -> Mask:
    """Which codes are wanted, by one table look-up; the last row answers for -1."""
    table = np.zeros(num_names + 1, dtype=np.bool_)
    table[[*wanted]] = True
    return table[codes]


def _unfit(leaf: Leaf, kind: str, fit: str) -> FilterError:
    op = type(leaf).__struct_config__.tag
    return FilterError(f"filter: {leaf.field!r} is a {kind}; {op!r} does not apply, use {fit}")
