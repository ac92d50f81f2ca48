"""The baseline that knows no one: items in the order of how often they were chosen."""

import numpy as np

from recipes.recommender.split import Split, held_out


def training_counts(split: Split) -> np.ndarray:
    """How often each item position occurs in training [N + 1]."""
    return np.bincount(split.log.items[~held_out(split)], minlength=split.log.num_items)


def popular(split: Split, count: int) -> np.ndarray:
    """Positions of the `count` most chosen items, most chosen first."""
    order = np.argsort(-training_counts(split), kind="stable")
    return order[order > 0][:count]
