"""The plainest correct index: look at every item, sort everything. The oracle of the others' tests."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.base import (
    EMPTY,
    Exclude,
    Filters,
    Hits,
    Learnt,
    by_filter,
    check_query,
    check_table,
    flat_exclude,
)
from tradewind.retrieve.filters import And, Equal, Filter, Flag, In, Not, Or, Range, Tags, bound
from tradewind.retrieve.segments import attributes_of


class NaiveIndex:
    """Scores every item of every query and sorts them."""

    def __init__(
        self, embedding: npt.NDArray[Any], *, skip: int = 0, attributes: Attributes | None = None
    ) -> None:
        self._table = check_table(embedding, skip)
        self._skip, self._attributes = skip, attributes
        self.num_items, self.dimension = self._table.shape

    @property
    def learnt(self) -> Learnt:
        """Nothing."""
        return {}

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        exclude: Exclude = None,
        filters: Filters = None,
    ) -> Hits:
        queries = check_query(self, queries, k)
        rows, excluded = flat_exclude(self, exclude, len(queries))
        wanted = {int(row): found for found, group in by_filter(filters, len(queries)) for row in group}
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        positions = np.full((len(queries), k), EMPTY, dtype=np.int64)
        for b, query in enumerate(queries):
            banned = {*range(self._skip), *excluded[rows == b].tolist()}
            allowed = self._allowed(wanted[b]) - banned
            scored = [(float(self._table[i] @ query), i) for i in allowed]
            for rank, (score, position) in enumerate(sorted(scored, key=lambda s: (-s[0], s[1]))[:k]):
                scores[b, rank], positions[b, rank] = score, position
        return Hits(scores, positions)

    def _allowed(self, wanted: Filter | None) -> set[int]:
        if wanted is None:
            return {*range(self.num_items)}
        attributes = attributes_of(self._attributes)
        attributes.mask(wanted)  # refuses what does not fit
        return {i for i, item in enumerate(rows_of(attributes)) if holds(wanted, item)}


def rows_of(attributes: Attributes) -> list[dict[str, Any]]:
    """Every item's attributes, None where it has none."""
    columns = {name: column.plain() for name, column in attributes.columns.items()}
    return [{name: values[i] for name, values in columns.items()} for i in range(len(attributes))]


def holds(wanted: Filter, item: dict[str, Any]) -> bool:
    """Whether a filter holds an item, by its definition."""
    match wanted:
        case And(filters=parts):
            return all(holds(part, item) for part in parts)
        case Or(filters=parts):
            return any(holds(part, item) for part in parts)
        case Not(filter=part):
            return not holds(part, item)
    value = item[wanted.field]
    match wanted:
        case Equal(value=expected):
            return value is not None and bool(value == expected)
        case In(values=expected_ones):
            return value is not None and value in expected_ones
        case Flag(value=expected_flag):
            return bool(value) == expected_flag
        case Range():
            low, high = bound(wanted.min), bound(wanted.max)
            return value is not None and (low is None or value >= low) and (high is None or value <= high)
        case Tags():
            return (not wanted.any or bool({*wanted.any} & {*value})) and {*wanted.all} <= {*value}
    raise AssertionError(f"no such filter: {wanted!r}")
