"""Candidate retrieval: the items with the largest inner product with a query, of those that a filter holds."""

from tradewind.retrieve.base import EMPTY, Exclude, Filters, Hits, Index
from tradewind.retrieve.filters import Filter, FilterError, check_filter, decode_filter
from tradewind.retrieve.registry import KINDS, build

__all__ = [
    "EMPTY",
    "KINDS",
    "Exclude",
    "Filter",
    "FilterError",
    "Filters",
    "Hits",
    "Index",
    "build",
    "check_filter",
    "decode_filter",
]
