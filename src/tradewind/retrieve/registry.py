"""Indexes by name."""

import importlib
from typing import TYPE_CHECKING, Any

from tradewind.errors import SpecError
from tradewind.retrieve.base import Index

if TYPE_CHECKING:
    import numpy as np

KINDS = {
    "auto": "tradewind.retrieve.auto:AutoIndex",
    "exact": "tradewind.retrieve.exact:ExactIndex",
    "faiss": "tradewind.retrieve.faiss:FaissIndex",
    "faiss-hnsw": "tradewind.retrieve.faiss:FaissHNSWIndex",
    "faiss-ivf": "tradewind.retrieve.faiss:FaissIVFIndex",
    "naive": "tradewind.retrieve.naive:NaiveIndex",
}

LEARN = frozenset({"auto", "faiss-hnsw", "faiss-ivf"})
"""Those that learn of their table what takes long to find out, and can be built of it."""


def build(kind: str, embedding: "np.ndarray", *, skip: int = 0, **options: Any) -> Index:
    """An index over the rows of `embedding` float32[N, D]; the first `skip` rows are never returned.

    Every kind takes `attributes=`, N rows to filter by; other options are the kind's own. Raises SpecError listing the kinds when there is no such one.
    """
    if kind not in KINDS:
        raise SpecError(f"no index {kind!r}; choose one of {', '.join(sorted(KINDS))}")
    module, name = KINDS[kind].split(":")
    index: Index = getattr(importlib.import_module(module), name)(embedding, skip=skip, **options)
    return index
