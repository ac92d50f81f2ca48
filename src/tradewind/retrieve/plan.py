"""How one search is done: exactly, by probing, or by over-fetching, whichever the measured profile says is fastest."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from tradewind.retrieve.single import FEW_QUERIES

BANDS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Shares of allowed items for which recall is kept apart, by the nearest."""
_MOST_PLANS = 1024
_SLACK = 1.5
"""Over-fetching asks for this many times what the estimated share says."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Measured: at `k` and this share of allowed items, `need` allowed items must be seen for `recall`.

    `need` is 0 where no number of probes that is faster than an exact scan reached the target.
    """

    k: int
    share: float
    need: int
    recall: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Measured microseconds per query against a number of rows, for single queries and in a batch of `batch`."""

    rows: tuple[int, ...]
    one_us: tuple[float, ...]
    batched_us: tuple[float, ...]
    batch: int

    def at(self, rows: float, num_queries: int) -> float:
        """Microseconds for all of `num_queries`, interpolated."""
        one, batched = (_line(rows, self.rows, us) for us in (self.one_us, self.batched_us))
        share = (1 - 1 / max(1, num_queries)) / (1 - 1 / self.batch)
        return num_queries * (one + min(1.0, share) * (batched - one))

    def rows_for(self, us: float) -> float:
        """The most rows that a single query looks at in so many microseconds."""
        if us > self.one_us[-1]:
            return self.rows[-1] * us / self.one_us[-1]
        return float(np.interp(us, np.maximum.accumulate(self.one_us), self.rows))


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What an index measured of itself when it was built; the one source for its plans.

    `scan` is over all rows, `subset` over scattered rows, `probe` over rows of the lists looked into, `gather` over the
    allowed ones of them alone; `compile_us` is the making of a bitmap from one condition, `group_us` of its items by list.
    """

    target: float
    cells: tuple[Cell, ...]
    scan: Curve
    subset: Curve
    probe: Curve
    gather: Curve
    compile_us: float
    group_us: float


class Ask(NamedTuple):
    """One search, or several with the same filter, as the choice sees it."""

    num_queries: int
    k: int
    num_items: int
    num_allowed: int
    filtered: bool
    compiled: bool = True
    num_conditions: int = 1


class Plan(NamedTuple):
    """How a search is done, what it should cost, and why.

    `need` is the number of allowed items to see; a query that had to look at more than `most_rows` rows for them is
    scanned instead.
    """

    name: str
    need: int
    us: float
    share: float
    reason: str
    most_rows: float = math.inf

    @property
    def band(self) -> float:
        return band_of(self.share)


Corrections = Mapping[tuple[str, float], float]
"""Factors on `need` by plan and band, from the audit; infinity forbids the plan there."""


def choose(profile: Profile | None, ask: Ask, corrections: Corrections) -> Plan:
    """The cheapest plan that the profile says reaches the target; an exact scan where none does."""
    share = ask.num_allowed / max(1, ask.num_items)
    compiling = 0.0 if ask.compiled or profile is None else profile.compile_us * ask.num_conditions
    if profile is None:
        return Plan("scan", 0, 0.0, share, "the table is small: every row is scored")
    curve = profile.subset if ask.filtered else profile.scan
    plans = [Plan("scan", 0, compiling + curve.at(ask.num_allowed, ask.num_queries), share, "")]
    if need := _need(profile, "probe", ask.k, share, corrections):
        plans.append(_probe(profile, ask, share, need, compiling))
    if ask.filtered and not ask.compiled:
        plans += _overfetch(profile, ask, share, corrections)
    best = min(plans, key=lambda plan: plan.us)
    others = ", ".join(f"{plan.name} {plan.us:.0f} us" for plan in plans if plan is not best)
    reason = f"{best.name} {best.us:.0f} us at {share:.2%} allowed" + (
        f", against {others}" if others else ""
    )
    return best._replace(reason=reason)


def fetched(k: int, share: float) -> int:
    """How many items over-fetching asks for, so that k are left."""
    return math.ceil(_SLACK * k / max(share, 1e-9)) + 16


def band_of(share: float) -> float:
    """The nearest of BANDS, by ratio."""
    return min(BANDS, key=lambda band: abs(math.log(band) - math.log(max(share, 1e-6))))


def _probe(profile: Profile, ask: Ask, share: float, need: int, compiling: float) -> Plan:
    """Every row of the lists is looked at, but for a few queries with a filter: those see what it holds alone."""
    if ask.filtered and not ask.compiled:
        compiling += profile.group_us
    if ask.filtered and ask.num_queries <= FEW_QUERIES:
        return Plan("probe", need, compiling + profile.gather.at(need, ask.num_queries), share, "")
    us = compiling + profile.probe.at(min(ask.num_items, need / max(share, 1e-9)), ask.num_queries)
    most_rows = profile.probe.rows_for(profile.subset.at(ask.num_allowed, 1)) if ask.filtered else math.inf
    return Plan("probe", need, us, share, "", most_rows)


def _overfetch(profile: Profile, ask: Ask, share: float, corrections: Corrections) -> list[Plan]:
    """The rows that hold what probing would have to see: measured, where `k / share` of all would go beyond it."""
    seen = _need(profile, "overfetch", ask.k, share, corrections)
    if not seen or fetched(ask.k, share) > ask.num_items // 8:
        return []
    need = max(fetched(ask.k, share), math.ceil(seen / share))
    return [Plan("overfetch", need, profile.probe.at(need, ask.num_queries), share, "")]


def _need(profile: Profile, name: str, k: int, share: float, corrections: Corrections) -> int:
    """Allowed items to see: the larger of the two nearest measured shares, between measured k by power law."""
    factor = corrections.get((name, band_of(share)), 1.0)
    shares = sorted({cell.share for cell in profile.cells})
    below = [s for s in shares if s <= share * 1.01][-1:]
    above = [s for s in shares if s >= share * 0.99][:1]
    needs = [_at_k([cell for cell in profile.cells if cell.share == s], k) for s in {*below, *above}]
    if not below or not all(needs) or math.isinf(factor):
        return 0
    return math.ceil(max(needs) * factor)


def _at_k(cells: list[Cell], k: int) -> float:
    """The need at k; 0 where a cell it rests on cannot reach the target."""
    cells = sorted(cells, key=lambda cell: cell.k)
    upper = next((i for i, cell in enumerate(cells) if cell.k >= k), len(cells) - 1)
    if k >= cells[upper].k:
        return cells[upper].need * k / cells[upper].k
    if upper == 0:
        return cells[0].need
    low, high = cells[upper - 1], cells[upper]
    if not low.need or not high.need:
        return 0.0
    weight = math.log(k / low.k) / math.log(high.k / low.k)
    return math.exp((1 - weight) * math.log(low.need) + weight * math.log(high.need))


def _line(x: float, xs: tuple[int, ...], ys: tuple[float, ...]) -> float:
    """Between measured points by straight lines, beyond the last in proportion."""
    if x > xs[-1]:
        return ys[-1] * x / xs[-1]
    return float(np.interp(x, xs, ys))


class Planner:
    """`choose`, remembering what it chose while the profile and the corrections are the same. Safe from any thread."""

    def __init__(self) -> None:
        self._kept: tuple[Profile | None, Corrections, dict[Ask, Plan]] = (None, {}, {})

    def choose(self, profile: Profile | None, ask: Ask, corrections: Corrections) -> Plan:
        """As the function."""
        kept_profile, kept_corrections, plans = self._kept
        if kept_profile is not profile or kept_corrections is not corrections or len(plans) >= _MOST_PLANS:
            plans = {}
            self._kept = profile, corrections, plans
        if (plan := plans.get(ask)) is None:
            plan = plans[ask] = choose(profile, ask, corrections)
        return plan
