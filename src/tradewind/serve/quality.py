"""How much worse one recommendation is than another."""

import math
from array import array
from collections.abc import Mapping, Sequence

from tradewind.serve.jobs import Tensor


def lost(full: Mapping[str, Tensor], degraded: Mapping[str, Tensor]) -> float:
    """Return 1 - NDCG@k of one user's degraded items, where the full answer is the truth. 0 is as good, 1 is useless."""
    return 1.0 - ndcg(_first_row(full), _first_row(degraded))


def ndcg(truth: Sequence[int], ranked: Sequence[int]) -> float:
    """Return the NDCG of `ranked` at the length of `truth`: an item gains 1/log2(rank + 1) by its rank in `truth`, else 0.

    With graded gains, as in Jarvelin and Kekalainen (TOIS 2002): a swap of neighbours costs little, a miss a lot.
    """
    gains = {item: 1.0 / math.log2(rank + 2) for rank, item in enumerate(truth)}
    best = sum(gain * gain for gain in gains.values())
    got = sum(gains.get(item, 0.0) / math.log2(rank + 2) for rank, item in enumerate(ranked))
    return got / best if best else 1.0


def _first_row(tensors: Mapping[str, Tensor]) -> list[int]:
    items = tensors["items"]
    row = array("q", bytes(items.data))[: items.shape[1]]
    return [item for item in row if item]
