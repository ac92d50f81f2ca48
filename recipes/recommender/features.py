"""Feature tables as numbers: one column a value for categories and tag lists; numbers scaled, and by quantile."""

import collections

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recipes.recommender.data import Features

MAX_VALUES = 40
"""A category or tag list with more distinct values than this (a title, a postcode) is left out."""

QUANTILES = 10


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


def tags(features: Features) -> dict[str, list[list[str]]]:
    """Each thing's words by the column that they came from, as `encode` found them: what items may be filtered by.

    A column whose name is no plain identifier is left out.
    """
    found: dict[str, list[list[str]]] = {}
    for label, held in zip(features.names, features.table.T > 0, strict=True):
        column, is_word, word = label.partition("=")
        if is_word and column.isascii() and column.isidentifier():
            rows = found.setdefault(column, [[] for _ in held])
            for row in np.flatnonzero(held):
                rows[row].append(word)
    return found


def _columns(name: str, column: pa.ChunkedArray) -> list[tuple[str, np.ndarray]]:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return _number(name, pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False))
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return []
    words = [(value or "").split() for value in column.to_pylist()]
    counts = collections.Counter(word for row in words for word in set(row))
    if len(counts) > MAX_VALUES:
        return []
    return [(f"{name}={word}", np.array([word in row for row in words], float)) for word in sorted(counts)]


def _number(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The standardised value and, where there are enough distinct ones, its quantile, one column each."""
    columns = [(name, _standardised(values))]
    known = values[np.isfinite(values)]
    if len(np.unique(known)) <= QUANTILES:
        return columns
    edges = np.unique(np.quantile(known, np.linspace(0, 1, QUANTILES + 1)[1:-1]))
    place = np.searchsorted(edges, values, side="right")
    place[~np.isfinite(values)] = -1
    return columns + [(f"{name}~{q}", (place == q).astype(float)) for q in range(len(edges) + 1)]


def _standardised(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    centre, spread = values[known].mean(), values[known].std()
    return np.where(known, (values - centre) / (spread or 1.0), 0.0)
