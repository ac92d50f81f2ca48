"""How every command prints: a table for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tradewind.record import Record, as_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from tradewind.cli.flags import Output


def emit(value: Any, output: Output, columns: Sequence[str] = ()) -> None:
    """Print `value` as JSON, or as a table of `columns` (rows) or of name-value pairs (one object).

    `value` is a mapping, a msgspec struct, or a sequence of either.
    """
    plain = to_plain(value)
    if output == "json":
        import json

        print(json.dumps(plain, indent=2, sort_keys=False, default=str))
    elif isinstance(plain, Mapping):
        print_pairs(plain, columns)
    else:
        print_table(plain, columns)


def to_plain(value: Any) -> Any:
    """`value` with structs turned into dicts and tuples into lists."""
    if isinstance(value, Record):
        return as_dict(value)
    import msgspec

    return msgspec.to_builtins(value, str_keys=True, enc_hook=as_dict)


def print_pairs(pairs: Mapping[str, Any], columns: Sequence[str] = ()) -> None:
    """Print one object, a field a line."""
    keys = list(columns) or list(pairs)
    width = max((len(key) for key in keys), default=0)
    for key in keys:
        print(f"{key:<{width}}  {cell(pairs.get(key))}")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Print rows under a header, columns as wide as their longest cell."""
    keys = list(columns) or (list(rows[0]) if rows else [])
    if not rows:
        print("(none)", file=sys.stderr)
        return
    grid = [[key.upper() for key in keys]] + [[cell(row.get(key)) for key in keys] for row in rows]
    widths = [max(len(line[i]) for line in grid) for i in range(len(keys))]
    for line in grid:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """One value as a person reads it: floats short, nothing as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.0f}"
    if value and isinstance(value, dict | list):
        import json

        return json.dumps(value, default=str)
    return str(value)
