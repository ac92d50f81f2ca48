"""The last level of a recommender: popular items, given by the front process itself."""

from array import array
from collections.abc import Sequence

from tradewind.serve.filtering import FILTER, FILTER_BYTES, ItemFilters, by_row
from tradewind.serve.jobs import Prepared, Tensor


class Popular:
    """Answers with the package's popular items, without those that the request leaves out or its filter does not hold."""

    def __init__(self, positions: Sequence[int], filters: ItemFilters | None = None) -> None:
        self._filters = filters or ItemFilters(popular=positions)

    def answer(self, prepared: Prepared) -> dict[str, Tensor] | None:
        """Return `items` INT64 [B, k] and `scores` FP32 [B, k], one over the rank; 0 and -inf where there are no more.

        None where a user's filter holds no popular item: others may well match it, so that no item is no answer.
        """
        counts = _integers(prepared.tensors["k"])
        seen, num_seen = _integers(prepared.tensors["seen"]), _integers(prepared.tensors["num_seen"])
        width, start = max(counts), 0
        items, scores = array("q"), array("f")
        for count, wanted in zip(num_seen, _filters(prepared), strict=True):
            row = self._row(self._filters.popular(wanted), set(seen[start : start + count]), width)
            if wanted and not row:
                return None
            empty = width - len(row)
            items.extend([*row, *[0] * empty])
            scores.extend([*(1.0 / rank for rank in range(1, len(row) + 1)), *[-float("inf")] * empty])
            start += count
        shape = (len(counts), width)
        return {
            "items": Tensor("INT64", shape, items.tobytes()),
            "scores": Tensor("FP32", shape, scores.tobytes()),
        }

    def _row(self, positions: Sequence[int], seen: set[int], width: int) -> list[int]:
        row: list[int] = []
        for position in positions:
            if position not in seen:
                row.append(position)
                if len(row) == width:
                    break
        return row


def _filters(prepared: Prepared) -> list[bytes]:
    if FILTER not in prepared.tensors:
        return [b""] * prepared.rows
    lengths = _integers(prepared.tensors[FILTER_BYTES])
    return by_row(bytes(prepared.tensors[FILTER].data), lengths)


def _integers(tensor: Tensor) -> "array[int]":
    return array("q", bytes(tensor.data))
