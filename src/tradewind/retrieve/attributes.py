"""What items are besides their vectors: named columns, and the items that a filter holds."""

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tradewind.retrieve.columns import Category, Column, Mask, Multi, Positions, column_of, joined
from tradewind.retrieve.filters import And, Filter, FilterError, Leaf, Not, Or, check_filter

if TYPE_CHECKING:
    import pyarrow as pa


class Attributes:
    """Columns of one length; row i is the item at position i. Never changes."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        """From arrays, tensors or sequences by name; see `columns.column_of` for what may be in one.

        Raises FilterError when a column is of no known kind, or columns differ in length.
        """
        self.columns: dict[str, Column] = {name: column_of(name, values) for name, values in columns.items()}
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len({*lengths.values()}) > 1:
            raise FilterError(f"attributes differ in length: {lengths}")
        self.num_items = next(iter(lengths.values()), 0)

    @classmethod
    def from_arrow(cls, table: "pa.Table") -> "Attributes":
        """From an Arrow table: texts and dictionaries, numbers, times, booleans, lists of texts."""
        import pyarrow as pa

        return cls({name: _from_arrow(table.column(name), pa) for name in table.column_names})

    def __len__(self) -> int:
        return self.num_items

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each field: category, number, flag or tags."""
        return {name: column.kind for name, column in self.columns.items()}

    def mask(self, wanted: Filter, rows: Positions | None = None) -> Mask:
        """Which items (of `rows`, where given) are in the filter; FilterError for a field there is none of."""
        check_filter(wanted)
        return self._mask(wanted, rows)

    def take(self, rows: Positions) -> "Attributes":
        """These rows, in this order."""
        return Attributes({name: column.take(rows) for name, column in self.columns.items()})

    def _mask(self, wanted: Filter, rows: Positions | None) -> Mask:
        if isinstance(wanted, Not):
            held = self._mask(wanted.filter, rows)
            return np.logical_not(held, out=held)
        if isinstance(wanted, And | Or):
            combine = np.logical_and if isinstance(wanted, And) else np.logical_or
            held = self._mask(wanted.filters[0], rows)
            for part in wanted.filters[1:]:
                combine(held, self._mask(part, rows), out=held)
            return held
        return self._column(wanted).mask(wanted, rows)

    def _column(self, leaf: Leaf) -> Column:
        if leaf.field not in self.columns:
            near = difflib.get_close_matches(leaf.field, self.columns, 1)
            hint = (
                f"; did you mean {near[0]!r}?"
                if near
                else f"; there are {', '.join(sorted(self.columns)) or 'none'}"
            )
            raise FilterError(f"filter: items have no attribute {leaf.field!r}{hint}")
        return self.columns[leaf.field]


def join(parts: Sequence[Attributes]) -> Attributes:
    """The rows of several, one after another; FilterError where their fields or kinds differ."""
    for part in parts[1:]:
        check_same(parts[0], part)
    return Attributes({name: joined([part.columns[name] for part in parts]) for name in parts[0].columns})


def check_same(expected: Attributes, given: Attributes) -> None:
    """Raise FilterError when the fields or their kinds differ."""
    if expected.kinds != given.kinds:
        raise FilterError(f"attributes are {given.kinds}; the index has {expected.kinds}")


def like(expected: Attributes, columns: Mapping[str, Any]) -> Attributes:
    """Attributes from `columns`, a column without any value taken as of the kind that is expected."""
    made = {}
    for name, values in columns.items():
        column = column_of(name, values)
        kind = expected.kinds.get(name, column.kind)
        if column.kind != kind and all(value is None or value == [] for value in column.plain()):
            column = _none(kind, len(column))
        made[name] = column
    given = Attributes(made)
    check_same(expected, given)
    return given


def of_kind(name: str, kind: str, values: Any) -> Column:
    """The column of a kind that its values alone do not show where there are none."""
    column = column_of(name, values)
    return column if column.kind == kind else _none(kind, len(column))


def _none(kind: str, count: int) -> Column:
    if kind == "flag":
        return column_of("", np.zeros(count, dtype=np.bool_))
    if kind == "tags":
        return Multi(np.zeros(count + 1, dtype=np.int64), np.zeros(0, dtype=np.int32), {})
    return column_of("", np.full(count, np.nan)) if kind == "number" else column_of("", [None] * count)


def _from_arrow(column: Any, pa: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        encoded = column.combine_chunks().dictionary_encode()
        names = {name: code for code, name in enumerate(encoded.dictionary.to_pylist())}
        return Category(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), names)
    if (
        pa.types.is_list(column.type)
        or pa.types.is_large_list(column.type)
        or pa.types.is_boolean(column.type)
    ):
        return column.to_pylist()
    return column.to_numpy()
