"""May this version replace the one in production: a paired bootstrap over users (Efron and Tibshirani 1993)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tradewind.errors import GateError

if TYPE_CHECKING:
    import numpy as np

    from tradewind.models.package import Package

USERS = "user"


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """How much worse a candidate may be: `metrics` maps a name to its margin, in the metric's own unit.

    Without metrics, every metric that production was evaluated on is asked for, with `margin`.
    """

    metrics: Mapping[str, float] = {}
    margin: float = 0.002
    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One metric: mean difference candidate - production per user, and its interval."""

    metric: str
    difference: float
    low: float
    high: float
    margin: float
    users: int

    @property
    def passed(self) -> bool:
        """Not worse by more than the margin, at the interval's lower end (a test of non-inferiority)."""
        return self.low >= -self.margin

    def text(self) -> str:
        sign = ">=" if self.passed else "<"
        return (
            f"{self.metric} {self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}] over {self.users} users, "
            f"lower end {sign} {-self.margin:g}"
        )


def judge(candidate: "Package", production: "Package", gate: Gate) -> list[Verdict]:
    """One verdict per metric. Raises GateError when the two were not evaluated on the same users."""
    ours, theirs = _evaluation(candidate), _evaluation(production)
    metrics = dict(gate.metrics) or dict.fromkeys(sorted(theirs.keys() - {USERS}), gate.margin)
    if not metrics:
        raise GateError(
            f"{production.path}: no per-user evaluation to compare with; --force promotes without"
        )
    return [_verdict(metric, margin, ours, theirs, gate) for metric, margin in metrics.items()]


def paired_bootstrap(
    differences: "np.ndarray", *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of per-user `differences`.

    Users with equal differences are drawn together (a multinomial over the distinct values), which is the same
    distribution and keeps millions of users cheap.
    """
    import numpy as np

    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    total = int(counts.sum())
    generator = np.random.default_rng(seed)
    chunk = max(1, min(resamples, 4_000_000 // len(values)))
    means = [
        generator.multinomial(total, counts / total, size=min(chunk, resamples - start)) @ values / total
        for start in range(0, resamples, chunk)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _verdict(
    metric: str,
    margin: float,
    ours: "Mapping[str, np.ndarray]",
    theirs: "Mapping[str, np.ndarray]",
    gate: Gate,
) -> Verdict:
    for who, evaluation in (("the candidate", ours), ("production", theirs)):
        if metric not in evaluation or metric == USERS:
            known = ", ".join(sorted(evaluation.keys() - {USERS})) or "none"
            raise GateError(f"{who} has no per-user {metric!r}; it has {known}")
    difference = _paired(ours, metric, theirs)
    low, high = paired_bootstrap(
        difference, confidence=gate.confidence, resamples=gate.resamples, seed=gate.seed
    )
    return Verdict(
        metric=metric,
        difference=float(difference.mean()),
        low=low,
        high=high,
        margin=margin,
        users=len(difference),
    )


def _paired(
    ours: "Mapping[str, np.ndarray]", metric: str, theirs: "Mapping[str, np.ndarray]"
) -> "np.ndarray":
    import numpy as np

    left, right = ours[metric].astype(np.float64), theirs[metric].astype(np.float64)
    if USERS in ours and USERS in theirs:
        left_order, right_order = (
            np.argsort(ours[USERS], kind="stable"),
            np.argsort(theirs[USERS], kind="stable"),
        )
        if not np.array_equal(ours[USERS][left_order], theirs[USERS][right_order]):
            raise GateError(f"{metric}: the two versions were evaluated on different users")
        left, right = left[left_order], right[right_order]
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise GateError(
            f"{metric}: evaluated on {left.shape} and {right.shape} users; evaluate both on the same"
        )
    difference: np.ndarray = left - right
    if not np.isfinite(difference).all():
        raise GateError(f"{metric}: some users have no finite value")
    return difference


def _evaluation(package: "Package") -> "dict[str, np.ndarray]":
    return {name: tensor.numpy() for name, tensor in package.evaluation().items()}
