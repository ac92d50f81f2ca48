"""What a number of audited searches say together."""

import math
from collections.abc import Collection
from typing import NamedTuple

WINDOW = 400
"""The newest searches of a plan that count."""


class Recall(NamedTuple):
    """Of one plan near one share of allowed items: the mean of n searches with its 95% interval."""

    plan: str
    band: float
    mean: float
    low: float
    high: float
    n: int


def recall_of(plan: str, band: float, values: Collection[float]) -> Recall:
    """Mean and normal interval; the deviation is never taken below that of one miss."""
    n, mean = len(values), sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(1, n - 1)
    half = 1.96 * math.sqrt(max(variance, 1 / n**2) / n)
    return Recall(plan, band, mean, max(0.0, mean - half), min(1.0, mean + half), n)
