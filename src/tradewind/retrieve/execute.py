"""One plan carried out on one state, for queries that share a filter."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tradewind.retrieve.filters import Filter
from tradewind.retrieve.inverted import Allowed, Grouped, Inverted
from tradewind.retrieve.plan import Plan, fetched
from tradewind.retrieve.scan import best_of
from tradewind.retrieve.segments import Chunk, Dead, State, Subset, attributes_of
from tradewind.retrieve.single import FEW_QUERIES

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Found(NamedTuple):
    """Scores and positions [B, W], best first, -1 with -inf at the ends; `exact[b]` where row b was scanned."""

    scores: Floats
    positions: Ints
    exact: npt.NDArray[np.bool_]


def run(state: State, plan: Plan, queries: Floats, k: int, wanted: Filter | None) -> Found:
    """The k best items of the base for each query; rows that the plan left short are done again exactly."""
    base = state.base
    if plan.name == "scan" or base.inverted is None:
        return scan(state, queries, k, wanted)
    if plan.name == "overfetch" and wanted is not None:
        found = _overfetch(state, base.inverted, plan, queries, k, wanted)
    else:
        subset = None if wanted is None else base.subset(wanted)
        found = _probe(state, base.inverted, plan, queries, k, subset)
    short = np.flatnonzero(found.positions[:, -1] < 0)
    return _again(state, found, short, queries, k, wanted)


def scan(state: State, queries: Floats, k: int, wanted: Filter | None) -> Found:
    """The exact answer over the base."""
    if wanted is None:
        banned = state.dead.flags if state.dead.some else None
        best = best_of(state.base.table, queries, k, banned=banned)
        return _exact(best.scores, best.rows, banned)
    subset = state.base.subset(wanted)
    positions, packed = subset.positions(), subset.packed()
    if not len(positions):
        return _exact(np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64), None)
    banned = subset.banned(state.dead)
    if packed is not None:
        best = best_of(packed, queries, k, banned=banned)
    else:
        best = best_of(state.base.table, queries, k, positions, banned)
    return _exact(best.scores, positions[best.rows], banned)


def with_chunk(found: Found, chunk: Chunk, queries: Floats, k: int, wanted: Filter | None) -> Found:
    """What was found, with the items of a chunk among it."""
    banned = chunk.banned(wanted)
    best = best_of(chunk.table, queries, k, banned=banned)
    fresh = _exact(best.scores, chunk.positions[best.rows], banned)
    scores = np.concatenate([found.scores, fresh.scores], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    positions = np.concatenate([found.positions, fresh.positions], axis=1)
    return Found(
        np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1), found.exact
    )


def _probe(
    state: State, inverted: Inverted, plan: Plan, queries: Floats, k: int, subset: Subset | None
) -> Found:
    """Probing; rows whose filter lies so far off that a scan of its items costs less are scanned."""
    allowed = _allowed(inverted, state.dead, subset)
    probes = inverted.probes(queries, state.dead.need(plan.need, len(inverted.positions)), allowed)
    if allowed is not None and allowed.grouped is not None and len(queries) <= FEW_QUERIES:
        return _gather(state, queries, k, probes.lists, allowed.grouped)
    far = probes.visited > plan.most_rows
    if far.all() and len(queries):
        return _empty(len(queries), k)
    probes.lists[far] = -1
    scores, positions = inverted.search(queries, k, probes, allowed)
    return Found(scores, positions, np.zeros(len(queries), dtype=np.bool_))


def _gather(state: State, queries: Floats, k: int, lists: Ints, grouped: Grouped) -> Found:
    """Each query by itself, of its lists only the items that its filter holds."""
    found = _empty(len(queries), k)
    gone = state.dead.flags if state.dead.removed else None
    for row in range(len(queries)):
        positions = grouped.those_of(lists[row][lists[row] >= 0])
        banned = None if gone is None else gone[positions]
        best = best_of(state.base.table, queries[row : row + 1], k, positions, banned)
        width = best.scores.shape[1]
        found.scores[row, :width] = best.scores
        found.positions[row, :width] = _marked(best.scores, positions[best.rows], banned)
    return found


def _overfetch(
    state: State, inverted: Inverted, plan: Plan, queries: Floats, k: int, wanted: Filter
) -> Found:
    """More items than k without the filter, which is then asked about these alone: no bitmap is made."""
    wide = fetched(k, plan.share)
    allowed = _allowed(inverted, state.dead, None)
    probes = inverted.probes(queries, state.dead.need(plan.need, len(inverted.positions)), allowed)
    scores, positions = inverted.search(queries, wide, probes, allowed)
    held = np.zeros(positions.shape, dtype=np.bool_)
    some = positions >= 0
    held[some] = attributes_of(state.base.attributes).mask(wanted, positions[some])
    order = np.argsort(~held, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(held, order, axis=1)
    scores = np.where(kept, np.take_along_axis(scores, order, axis=1), np.float32(-np.inf))
    positions = np.where(kept, np.take_along_axis(positions, order, axis=1), -1)
    return Found(scores, positions, np.zeros(len(queries), dtype=np.bool_))


def _again(
    state: State, found: Found, short: npt.NDArray[np.int64], queries: Floats, k: int, wanted: Filter | None
) -> Found:
    if not len(short):
        return found
    exact = scan(state, queries[short], k, wanted)
    width = exact.scores.shape[1]
    found.scores[short, :width], found.positions[short, :width] = exact.scores, exact.positions
    found.scores[short, width:], found.positions[short, width:] = -np.inf, -1
    found.exact[short] = True
    return found


def _allowed(inverted: Inverted, dead: Dead, subset: Subset | None) -> Allowed | None:
    if subset is not None:
        return subset.allowed(inverted, dead)
    return Allowed(dead.alive_bits, inverted.sizes) if dead.removed else None


def _exact(scores: Floats, positions: Ints, banned: npt.NDArray[np.bool_] | None) -> Found:
    """Of a scan."""
    return Found(scores, _marked(scores, positions, banned), np.ones(len(scores), dtype=np.bool_))


def _empty(num_queries: int, k: int) -> Found:
    scores = np.full((num_queries, k), -np.inf, dtype=np.float32)
    return Found(scores, np.full((num_queries, k), -1, dtype=np.int64), np.zeros(num_queries, dtype=np.bool_))


def _marked(scores: Floats, positions: Ints, banned: npt.NDArray[np.bool_] | None) -> Ints:
    """The positions, -1 for those that were banned: they are at the ends."""
    return positions if banned is None else np.where(scores == -np.inf, -1, positions)
