"""Feature tables as numbers: scaled columns for numbers, one column a value for categories and tag lists."""

import collections

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recipes.recommender.data import Features

MAX_VALUES = 40
"""A category or tag list with more distinct values than this (a title, a postcode) is left out."""


def encode(table: pa.Table | None, key: str, ids: list[str]) -> Features:
    """Align `table` to `ids`: a thing without a row gets zeros. Numbers are standardised over `ids`."""
    if table is None:
        return Features.none(len(ids))
    row = {str(name): index for index, name in enumerate(table[key].to_pylist())}
    rows = np.array([row.get(name, -1) for name in ids])
    names: list[str] = []
    columns: list[np.ndarray] = []
    for name in sorted(set(table.column_names) - {key}):
        for label, values in _columns(name, table[name]):
            names.append(label)
            columns.append(np.where(rows >= 0, values[rows], 0.0))
    if not columns:
        return Features.none(len(ids))
    return Features(names=tuple(names), table=np.stack(columns, 1).astype(np.float32))


def _columns(name: str, column: pa.ChunkedArray) -> list[tuple[str, np.ndarray]]:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return [(name, _standardised(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)))]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return []
    words = [(value or "").split() for value in column.to_pylist()]
    counts = collections.Counter(word for row in words for word in set(row))
    if len(counts) > MAX_VALUES:
        return []
    return [(f"{name}={word}", np.array([word in row for row in words], float)) for word in sorted(counts)]


def _standardised(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    centre, spread = values[known].mean(), values[known].std()
    return np.where(known, (values - centre) / (spread or 1.0), 0.0)
