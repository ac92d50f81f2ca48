"""The last level of a recommender: popular items, given by the front process itself."""

from array import array
from collections.abc import Sequence

from tradewind.serve.jobs import Prepared, Tensor


class Popular:
    """Answers with the package's popular items, without those that the request leaves out."""

    def __init__(self, positions: Sequence[int]) -> None:
        self._positions = tuple(positions)

    def answer(self, prepared: Prepared) -> dict[str, Tensor]:
        """Return `items` INT64 [B, k] and `scores` FP32 [B, k], one over the rank; 0 and -inf where there are no more."""
        counts = _integers(prepared.tensors["k"])
        seen, num_seen = _integers(prepared.tensors["seen"]), _integers(prepared.tensors["num_seen"])
        width, start = max(counts), 0
        items, scores = array("q"), array("f")
        for count in num_seen:
            row = self._row(set(seen[start : start + count]), width)
            empty = width - len(row)
            items.extend([*row, *[0] * empty])
            scores.extend([*(1.0 / rank for rank in range(1, len(row) + 1)), *[-float("inf")] * empty])
            start += count
        shape = (len(counts), width)
        return {
            "items": Tensor("INT64", shape, items.tobytes()),
            "scores": Tensor("FP32", shape, scores.tobytes()),
        }

    def _row(self, seen: set[int], width: int) -> list[int]:
        row = []
        for position in self._positions:
            if position not in seen:
                row.append(position)
                if len(row) == width:
                    break
        return row


def _integers(tensor: Tensor) -> "array[int]":
    return array("q", bytes(tensor.data))
