"""Jagged sequences: `values[offsets[b]:offsets[b + 1]]` is sequence b, oldest first, with no padding.

Token-wise work (embeddings, projections, norms, the softmax over items) runs on the flat [T, D]
tensors. Only attention needs a rectangle; a `Layout` cuts a batch into groups of similar length,
so that little of it is padding, and says how much.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Layout:
    """Rectangles over a flat tensor: `groups[g][s, l]` is the row of token l of sequence s.

    Cells past a sequence's end repeat one of its rows: they are later than every real query, so
    the causal mask hides them as keys, and as queries nobody reads them. `where[t]` is token t's
    cell in the groups' outputs laid end to end.
    """

    groups: tuple[Tensor, ...]
    where: Tensor

    @property
    def padding(self) -> float:
        """Fraction of attention's cells (queries times keys) that padding adds."""
        cells = sum(index.shape[0] * index.shape[1] ** 2 for index in self.groups)
        return 1.0 - self.real_cells / cells

    @property
    def real_cells(self) -> int:
        total = 0
        for index in self.groups:
            lengths = 1 + (index[:, 1:] != index[:, :-1]).sum(1)
            total += int((lengths**2).sum())
        return total


@dataclasses.dataclass(frozen=True)
class Jagged:
    """A batch of histories. `next_times[t]` is when the event after token t happens (or is asked for)."""

    values: Tensor
    offsets: Tensor
    timestamps: Tensor
    ratings: Tensor
    next_times: Tensor
    layout: Layout

    def to(self, device: torch.device) -> "Jagged":
        moved = {
            f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self) if f.name != "layout"
        }
        groups = tuple(index.to(device) for index in self.layout.groups)
        return Jagged(**moved, layout=Layout(groups, self.layout.where.to(device)))

    @property
    def sequence(self) -> Tensor:
        """Each token's sequence."""
        token = torch.arange(self.values.shape[0], device=self.values.device)
        return torch.searchsorted(self.offsets[1:].contiguous(), token, right=True)

    @property
    def last(self) -> Tensor:
        """Row of each sequence's newest token."""
        return self.offsets[1:] - 1


def group_layout(offsets: np.ndarray, max_waste: float = 0.15, smallest: int = 8) -> Layout:
    """Cut sequences, longest first, into groups; a group ends when its next member would waste too much.

    `max_waste`: the fraction of a member's row that may be padding; a group has at least `smallest`
    sequences, since tiny matrix products cost more than some padding.
    """
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    groups: list[Tensor] = []
    where = np.empty(int(offsets[-1]), np.int64)
    start = cells = 0
    while start < len(order):
        longest = lengths[order[start]]
        stop = start + int(np.searchsorted(-lengths[order[start:]], -(1 - max_waste) * longest, side="right"))
        members = order[start : max(stop, start + smallest)]
        column = np.arange(longest)
        index = offsets[members, None] + np.minimum(column, lengths[members, None] - 1)
        real = column < lengths[members, None]
        where[index[real]] = cells + np.flatnonzero(real)
        groups.append(torch.from_numpy(index))
        cells += index.size
        start += len(members)
    return Layout(tuple(groups), torch.from_numpy(where))


def single_layout(offsets: Tensor, tokens: Tensor, length: int) -> Layout:
    """One rectangle `length` wide, by tensor operations only, so that it can be exported with dynamic sizes."""
    lengths = offsets[1:] - offsets[:-1]
    column = torch.arange(length, device=offsets.device)
    index = offsets[:-1, None] + torch.minimum(column[None], lengths[:, None] - 1)
    token = torch.arange(tokens.shape[0], device=offsets.device)
    sequence = torch.searchsorted(offsets[1:].contiguous(), token, right=True)
    return Layout((index,), sequence * length + token - offsets[sequence])


def next_times(timestamps: Tensor, offsets: Tensor, now: Tensor) -> Tensor:
    """Each token's next event's time; the newest token of sequence b gets `now[b]`."""
    return torch.roll(timestamps, -1).index_copy(0, offsets[1:] - 1, now)


def collate(
    items: np.ndarray, timestamps: np.ndarray, ratings: np.ndarray, spans: np.ndarray, now: np.ndarray
) -> Jagged:
    """Gather `spans` [B, 2] (start, stop) of the flat event arrays into one batch; `now[b]` ends sequence b."""
    return gather(items, timestamps, ratings, *rows_of(spans), now)


def rows_of(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `spans` [B, 2] laid end to end, and each span's length."""
    lengths = spans[:, 1] - spans[:, 0]
    offsets = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(spans[:, 0] - offsets, lengths), lengths


def gather(
    items: np.ndarray,
    timestamps: np.ndarray,
    ratings: np.ndarray,
    rows: np.ndarray,
    lengths: np.ndarray,
    now: np.ndarray,
) -> Jagged:
    """One batch of these rows of the flat event arrays, `lengths[b]` to sequence b."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    times, bounds = torch.from_numpy(timestamps[rows]), torch.from_numpy(offsets)
    return Jagged(
        values=torch.from_numpy(items[rows]),
        offsets=bounds,
        timestamps=times,
        ratings=torch.from_numpy(ratings[rows]),
        next_times=next_times(times, bounds, torch.from_numpy(now)),
        layout=group_layout(offsets),
    )
