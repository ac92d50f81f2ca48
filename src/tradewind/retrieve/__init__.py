"""Candidate retrieval: the items with the largest inner product with a query."""

from tradewind.retrieve.base import EMPTY, Exclude, Hits, Index
from tradewind.retrieve.registry import KINDS, build

__all__ = ["EMPTY", "KINDS", "Exclude", "Hits", "Index", "build"]
