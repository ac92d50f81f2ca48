"""Inner products for a query or a few, on the caller's thread alone.

Waking other threads for tens of microseconds of work costs milliseconds when the cores are busy, and fetching scattered
rows before a product costs as much as the product; FAISS has kernels that do neither.
"""

import numpy as np
import numpy.typing as npt

from tradewind.retrieve.inverted import load_faiss

FEW_QUERIES = 4
"""More than this and one matrix product is faster."""
FEW_ROWS = 131_072
"""More than this and several threads are faster."""


def products(
    table: npt.NDArray[np.float32],
    queries: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """float32[B, M]: queries float32[B, D] times the rows int64[M] of float32[N, D], or all of them."""
    faiss = load_faiss()
    pointer, threads = faiss.swig_ptr, faiss.omp_get_max_threads()
    count, dimension = len(table) if rows is None else len(rows), table.shape[1]
    scores = np.empty((len(queries), count), dtype=np.float32)
    faiss.omp_set_num_threads(1)  # of this thread only
    try:
        for b in range(len(queries)):
            out, query = pointer(scores[b : b + 1]), pointer(queries[b : b + 1])
            if rows is None:
                faiss.fvec_inner_products_ny(out, query, pointer(table), dimension, count)
            else:
                faiss.fvec_inner_products_by_idx(
                    out, query, pointer(table), pointer(rows), dimension, 1, count
                )
    finally:
        faiss.omp_set_num_threads(threads)
    return scores
