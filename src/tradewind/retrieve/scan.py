"""The exact answer: one matrix product, and the best of it in two passes."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tradewind.retrieve.single import FEW_QUERIES, FEW_ROWS, products

_BLOCK = 1 << 25
"""Scores held at once (128 MiB)."""
_ONE_PASS = 16_384
"""Up to here one `topk` is faster than block maxima first."""
_WIDEST, _BLOCKS_PER_RESULT = 64, 8
"""Of one row's scores: the most of which one maximum is taken, and the fewest maxima for each result."""


class Best(NamedTuple):
    """Per query, best first: scores float32[B, W] and rows int64[B, W]; W is k, or fewer where there are fewer rows."""

    scores: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]


def best_rows(
    table: torch.Tensor, queries: npt.NDArray[np.float32], k: int, banned: npt.NDArray[np.bool_] | None = None
) -> Best:
    """The k rows of float32[M, D] with the largest inner products with each of float32[B, D], without those `banned`.

    A banned row may fill up the end; its score is -inf.
    """
    width, block = min(k, len(table)), max(1, _BLOCK // max(1, len(table)))
    left_out = None if banned is None else torch.from_numpy(banned).to(table.device)
    parts = [
        _block(table, torch.from_numpy(queries[start : start + block]).to(table.device), width, left_out)
        for start in range(0, len(queries), block)
    ]
    if not parts:
        return Best(np.zeros((0, width), np.float32), np.zeros((0, width), np.int64))
    return parts[0] if len(parts) == 1 else Best(*(np.concatenate(side) for side in zip(*parts, strict=True)))


def best_of(
    table: torch.Tensor,
    queries: npt.NDArray[np.float32],
    k: int,
    rows: npt.NDArray[np.int64] | None = None,
    banned: npt.NDArray[np.bool_] | None = None,
) -> Best:
    """As `best_rows` over `rows` of a table in main memory, by whichever kernels suit; the result names rows of `rows`."""
    count = len(table) if rows is None else len(rows)
    if len(queries) > FEW_QUERIES or count > FEW_ROWS:
        return best_rows(
            table if rows is None else table.index_select(0, torch.from_numpy(rows)), queries, k, banned
        )
    scores = products(table.numpy(), queries, rows)
    if banned is not None:
        scores[:, banned] = -np.inf
    shape = len(queries), min(k, count)
    best = Best(np.empty(shape, np.float32), np.empty(shape, np.int64))
    for b in range(len(queries)):
        best.rows[b] = _largest(scores[b], shape[1])
        best.scores[b] = scores[b][best.rows[b]]
    return best


def _largest(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Where the k largest of float32[M] are, best first.

    The k-th largest of some maxima is no larger than the k-th largest of all: whoever is under it is not looked at.
    """
    count, width = len(scores), min(_WIDEST, len(scores) // (_BLOCKS_PER_RESULT * max(1, k)))
    if width < 2:
        rows = np.argpartition(scores, -k)[count - k :] if 0 < k < count else np.arange(count)
    else:
        maxima = scores[: count // width * width].reshape(width, -1).max(axis=0)
        least = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
        rows = np.flatnonzero(scores >= least)
    return rows[np.argsort(-scores[rows])[:k]]


def _block(table: torch.Tensor, queries: torch.Tensor, k: int, banned: torch.Tensor | None) -> Best:
    with torch.inference_mode():
        scores = torch.mv(table, queries[0])[None] if len(queries) == 1 else queries @ table.T
        if banned is not None:
            scores.masked_fill_(banned, -torch.inf)
        values, rows = largest(scores, k)
        return Best(values.cpu().numpy(), rows.cpu().numpy())


def largest(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`scores.topk(k)` of float32[B, M]; where M is large, of the k blocks with the largest maxima, which hold it."""
    count = scores.shape[1]
    width = 1 << max(0, round(np.log2(max(1.0, count / max(1, k))) / 2))
    if count <= _ONE_PASS or width < 8 or count < 4 * k * width:
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    num_blocks = count // width
    blocks = scores[:, : num_blocks * width].reshape(-1, num_blocks, width)
    chosen = blocks.amax(2).topk(k, dim=1, sorted=False).indices
    inside = blocks.gather(1, chosen[:, :, None].expand(-1, -1, width)).flatten(1)
    columns = (chosen[:, :, None] * width + torch.arange(width, device=scores.device)).flatten(1)
    tail = torch.arange(num_blocks * width, count, device=scores.device).expand(len(scores), -1)
    candidates = torch.cat([inside, scores[:, num_blocks * width :]], dim=1)
    best = candidates.topk(k, dim=1)
    return best.values, torch.cat([columns, tail], dim=1).gather(1, best.indices)
