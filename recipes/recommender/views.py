"""What a step sees of its windows: the same events from other starts, with gaps, ties in any order.

Events with the same timestamp have no order that means anything, though a log has to list them in
one. Showing them in another order each time is the same data, and keeps a model from learning the
list by heart.
"""

import dataclasses

import numpy as np

from recipes.recommender.jagged import rows_of
from recipes.recommender.split import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """Varies windows from step to step; as built it shows them as they are."""

    shuffle_ties: bool = False
    shift: int = 0
    """A window may end up to this many events later, where the user has them."""
    drop: float = 0.0
    """Share of events left out of each window."""

    def draw(
        self, split: Split, spans: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the log, window after window; how many each window has; and how many of its newest are targets."""
        spans = self._shifted(split, spans, rng)
        rows, counts = rows_of(spans[:, :2] + np.array([0, 1]))
        window = np.repeat(np.arange(len(counts)), counts)
        if self.drop:
            keep = rng.random(len(rows)) >= self.drop
            keep |= (np.bincount(window[keep], minlength=len(counts)) < 2)[window]
            rows, window = rows[keep], window[keep]
        counts, first = np.bincount(window, minlength=len(counts)), spans[:, 2]
        targets = np.bincount(window[rows >= first[window]], minlength=len(counts))
        if self.shuffle_ties:
            rows = rows[np.lexsort((rng.random(len(rows)), split.log.timestamps[rows], window))]
        return rows, counts, np.minimum(targets, counts - 1)

    def _shifted(self, split: Split, spans: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.shift:
            return spans
        users = np.searchsorted(split.log.offsets, spans[:, 0], side="right") - 1
        room = split.train_stop[users] - 1 - spans[:, 1]
        return spans + np.minimum(rng.integers(0, self.shift + 1, len(spans)), room)[:, None]
