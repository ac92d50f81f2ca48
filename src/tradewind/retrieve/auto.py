"""The index that needs no knobs: it builds what suits the size, measures itself, plans every search, and takes changes."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import structlog

from tradewind.retrieve import building, execute
from tradewind.retrieve.attributes import Attributes, like
from tradewind.retrieve.audit import Audit, Sample
from tradewind.retrieve.base import (
    Exclude,
    Filters,
    Hits,
    Learnt,
    by_filter,
    check_query,
    check_table,
    fill,
    flat_exclude,
    without_excluded,
)
from tradewind.retrieve.filters import And, Filter, Not, Or
from tradewind.retrieve.plan import Ask, Plan, Planner
from tradewind.retrieve.segments import Base, Chunk, Dead, State, attributes_of, compact

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_REBUILD_SHARE = 0.1
_REBUILD_LEAST = 4096
_ESTIMATE_ROWS = 2048
log = structlog.get_logger()


class Explained(NamedTuple):
    """Hits, and for each query the plan that found them."""

    hits: Hits
    plans: tuple[Plan, ...]


class AutoIndex:
    """Exact where that is fast enough, else inverted lists; filters, upserts, deletes and an audit of recall.

    Any number of threads may search while any number change the index. A search sees the items of one instant: all of
    each `upsert` and `delete` that returned before it began. Changes wait for each other; searches wait for nobody.
    """

    def __init__(
        self,
        embedding: npt.NDArray[Any],
        *,
        skip: int = 0,
        attributes: Attributes | None = None,
        target: float = 0.99,
        audit_share: float = 0.01,
        queries: Floats | None = None,
        learnt: Learnt | None = None,
    ) -> None:
        """Build over float32[N, D]; `attributes` has N rows, `queries` [Q, D] are typical ones where there are some.

        Raises ValueError when these do not fit each other.
        """
        table = check_table(embedding, skip)
        check_attributes(attributes, len(table))
        dead = np.arange(len(table)) < skip
        base = building.build_base(table, ~dead, attributes, target=target, queries=queries, learnt=learnt)
        self._start(State(base, Dead.of(dead, 0), (), len(table)), target, audit_share)
        self._queries = queries

    @classmethod
    def resumed(cls, state: State, *, target: float, audit_share: float) -> "AutoIndex":
        """An index over a state that was kept."""
        index = cls.__new__(cls)
        index._start(state, target, audit_share)
        index._queries = None
        return index

    def _start(self, state: State, target: float, audit_share: float) -> None:
        self.dimension: int = state.base.vectors.shape[1]
        self.audit = Audit(target, audit_share)
        self.target = target
        self._state = state
        self._planner = Planner()
        self._lock = threading.Lock()
        self._rebuilding: threading.Thread | None = None
        self._touched: list[Ints] | None = None
        self._failure: Exception | None = None

    @property
    def num_items(self) -> int:
        """Rows of the table, those never returned and those deleted included."""
        return self._state.num_items

    @property
    def learnt(self) -> Learnt:
        """The lists of the base and what they measured of themselves; nothing where all is scanned."""
        return building.learnt_of(self._state.base)

    @property
    def state(self) -> State:
        """What the index holds now; it never changes."""
        return self._state

    def search(self, queries: Floats, k: int, exclude: Exclude = None, filters: Filters = None) -> Hits:
        """The k best items of each query that its filter holds; see `Index.search`."""
        return self.explained(queries, k, exclude, filters).hits

    def explained(
        self, queries: Floats, k: int, exclude: Exclude = None, filters: Filters = None
    ) -> Explained:
        """As `search`, with the plan of each query and why it was chosen."""
        state = self._state
        queries = check_query(self, queries, k)
        rows, excluded = flat_exclude(self, exclude, len(queries))
        longest = int(np.bincount(rows).max()) if len(rows) else 0
        hits = fill(len(queries), k)
        plans: list[Plan | None] = [None] * len(queries)
        for wanted, group in by_filter(filters, len(queries)):
            plan, found = self._group(state, queries[group], min(k + longest, state.num_items), wanted)
            best = Hits(found.scores, found.positions)
            hits.put(group, without_excluded(best, k, group, rows, excluded, state.num_items))
            for row in group.tolist():
                plans[row] = plan
        return Explained(hits, tuple(plan for plan in plans if plan is not None))

    def upsert(
        self, positions: Ints | Sequence[int], vectors: Floats, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Add items or replace them: float32[M, D], with M values of every attribute. Later rows win.

        New positions follow the last without gaps. Searches that begin after this returns see the change.
        Raises ValueError for shapes, positions or attributes that do not fit.
        """
        places = np.asarray(positions, dtype=np.int64)
        table = check_table(vectors, 0) if len(places) else np.zeros((0, self.dimension), np.float32)
        if table.shape != (len(places), self.dimension):
            raise ValueError(f"vectors have shape {list(table.shape)}, not [{len(places)}, {self.dimension}]")
        given = self._attributes(attributes, len(places))
        last = np.sort(len(places) - 1 - np.unique(places[::-1], return_index=True)[1])
        fresh = Chunk(places, table, given, np.ones(len(places), dtype=np.bool_))
        with self._lock:
            end = _grown(places, self._state.num_items)
            state = self._without(places)
            mask = np.zeros(len(places), dtype=np.bool_)
            mask[last] = True
            chunks = compact((*state.chunks, fresh.only(mask))) if len(places) else state.chunks
            self._state = state._replace(chunks=chunks, num_items=end)
        self._maybe_rebuild()

    def delete(self, positions: Ints | Sequence[int]) -> None:
        """Return these items no more; a position that holds nothing is left alone. ValueError outside the table."""
        places = np.asarray(positions, dtype=np.int64)
        with self._lock:
            if len(places) and not 0 <= places.min() <= places.max() < self._state.num_items:
                raise ValueError(f"a deleted position is outside 0 to {self._state.num_items - 1}")
            self._state = self._without(places)
        self._maybe_rebuild()

    def rebuild(self) -> None:
        """Build the base anew over what is held now, and change over at once; searches and changes go on meanwhile."""
        with self._lock:
            if self._touched is not None:
                raise RuntimeError("the index is being rebuilt already; wait_rebuilt() waits for it")
            before, self._touched = self._state, []
        try:
            base, dead = building.rebuilt(before, target=self.target, queries=self._queries)
            with self._lock:
                self._state = building.carried_over(self._state, base, dead, self._touched)
            self.audit.forget_waiting()
        finally:
            with self._lock:
                self._touched = None

    def wait_rebuilt(self) -> None:
        """Wait for a rebuild in the background; raises what it failed with."""
        if (running := self._rebuilding) is not None:
            running.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _group(
        self, state: State, queries: Floats, k: int, wanted: Filter | None
    ) -> tuple[Plan, execute.Found]:
        plan = self._plan(state, len(queries), k, wanted)
        found = execute.run(state, plan, queries, k, wanted)
        if plan.name != "scan" and self.audit.wants():
            self._keep(state, plan, queries, k, wanted, found)
        for chunk in state.chunks:
            found = execute.with_chunk(found, chunk, queries, k, wanted)
        return plan, found

    def _plan(self, state: State, num_queries: int, k: int, wanted: Filter | None) -> Plan:
        base, profile = state.base, state.base.profile
        num_base = len(base.vectors) if base.inverted is None else len(base.inverted.positions)
        ask = Ask(num_queries, k, num_base, num_base, filtered=wanted is not None)
        if wanted is None or profile is None:
            return self._planner.choose(profile, ask, self.audit.corrections)
        subset = base.known(wanted)
        if subset is None and base.met(wanted):
            subset = base.subset(wanted)
        if subset is not None:
            ask = ask._replace(num_allowed=subset.count)
            return self._planner.choose(profile, ask, self.audit.corrections)
        share = _estimate(base, wanted)
        ask = ask._replace(
            num_allowed=int(share * num_base), compiled=False, num_conditions=_num_conditions(wanted)
        )
        return self._planner.choose(profile, ask, self.audit.corrections)

    def _keep(
        self,
        state: State,
        plan: Plan,
        queries: Floats,
        k: int,
        wanted: Filter | None,
        found: execute.Found,
    ) -> None:
        row = self.audit.pick(len(queries))
        if not found.exact[row]:
            scores = found.scores[row].copy()
            self.audit.keep(Sample(state, plan, queries[row : row + 1].copy(), k, wanted, scores))

    def _attributes(self, given: Mapping[str, Any] | None, count: int) -> Attributes | None:
        expected = self._state.base.attributes
        if expected is None:
            if given:
                raise ValueError("this index has no attributes; build it with `attributes=`")
            return None
        made = like(expected, given or {})
        check_attributes(made, count)
        return made

    def _without(self, places: Ints) -> State:
        """The state without the items at `places`; called under the lock."""
        state = self._state
        if self._touched is not None:
            self._touched.append(places)
        chunks = tuple(chunk.without(places) for chunk in state.chunks)
        return state._replace(dead=building.with_dead(state.dead, places), chunks=chunks)

    def _maybe_rebuild(self) -> None:
        """Start a rebuild in the background once a tenth of the items is fresh or gone."""
        with self._lock:
            state = self._state
            changed = max(state.num_fresh, state.dead.removed)
            busy = self._touched is not None or (self._rebuilding is not None and self._rebuilding.is_alive())
            if busy or changed < max(_REBUILD_LEAST, _REBUILD_SHARE * len(state.base.vectors)):
                return
            self._rebuilding = threading.Thread(target=self._rebuild_aside, name="index-rebuild", daemon=True)
            self._rebuilding.start()

    def _rebuild_aside(self) -> None:
        try:
            self.rebuild()
        except Exception as error:  # whoever waits for the rebuild gets it, and the log has it now
            self._failure = error
            log.exception("index rebuild failed; the index goes on as it is", error=str(error))


def check_attributes(attributes: Attributes | None, count: int) -> None:
    """Raise ValueError when there are attributes, but not one row for each of `count` items."""
    if attributes is not None and len(attributes) != count:
        raise ValueError(f"{len(attributes)} rows of attributes for {count} items")


def _grown(places: Ints, num_items: int) -> int:
    """The size of the table with `places` in it, or ValueError where that leaves a gap."""
    new = np.unique(places[places >= num_items])
    end = num_items + len(new)
    if len(places) and (places.min() < 0 or (len(new) and new[-1] >= end)):
        raise ValueError(f"new positions follow {num_items - 1} without a gap; {int(places.max())} does not")
    return end


def _estimate(base: Base, wanted: Filter) -> float:
    """The share of items in a filter, from evenly spaced ones; half an item where none is."""
    attributes = attributes_of(base.attributes)
    rows = np.unique(np.linspace(0, len(attributes) - 1, _ESTIMATE_ROWS).astype(np.int64))
    return max(float(attributes.mask(wanted, rows).mean()), 0.5 / len(rows))


def _num_conditions(wanted: Filter) -> int:
    if isinstance(wanted, And | Or):
        return 1 + sum(_num_conditions(part) for part in wanted.filters)
    return 1 + _num_conditions(wanted.filter) if isinstance(wanted, Not) else 1
