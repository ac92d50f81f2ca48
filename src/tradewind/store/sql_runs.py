"""Runs, attempts, events and metrics in tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as ConstraintError

from tradewind.errors import NotFoundError, SpecError
from tradewind.store import schema
from tradewind.store.engine import Database
from tradewind.store.records import Attempt, Event, Metric, Run

_LAST = "last"
_NEWEST_FIRST = (schema.runs.c.created_s.desc(), schema.runs.c.seq.desc())


class RunTables:
    """The half of the store that is about runs."""

    _db: Database

    def add_run(self, run: Run) -> Run:
        if _LAST in (run.id, run.name):
            raise SpecError(
                f"a run cannot be called {_LAST!r}: it stands for the newest run; take another name"
            )
        with self._db.write() as connection:
            _insert(connection, schema.runs, run, f"run {run.id} exists already; give it another id")
        return run

    def update_run(self, id: str, **fields: Any) -> Run:
        with self._db.write(("run", id)) as connection:
            run = schema.changed(Run, _one_run(connection, id), fields)
            connection.execute(_set(schema.runs, run).where(schema.runs.c.id == id))
        return run

    def run(self, ref: str) -> Run:
        table = schema.runs
        with self._db.read() as connection:
            for query in (table.c.id == ref, table.c.name == ref):
                if found := _runs(connection, query, limit=1):
                    return found[0]
            if ref == _LAST and (found := _runs(connection, sa.true(), limit=1)):
                return found[0]
            start = sa.func.substr(table.c.id, 1, len(ref), type_=schema.Words)
            found = _runs(connection, start == ref, limit=3) if ref else []
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(run.id for run in found)
            raise NotFoundError(f"{ref!r} begins the id of several runs ({some}, ...): write more of it")
        raise NotFoundError(f"no run {ref!r}: neither an id, the start of one, a name, nor 'last'")

    def runs(self, limit: int = 50) -> list[Run]:
        with self._db.read() as connection:
            return _runs(connection, sa.true(), limit)

    def add_attempt(self, attempt: Attempt) -> Attempt:
        with self._db.write() as connection:
            _one_run(connection, attempt.run)
            problem = f"run {attempt.run} has an attempt {attempt.index} already; take the next index"
            _insert(connection, schema.attempts, attempt, problem)
        return attempt

    def update_attempt(self, run: str, index: int, **fields: Any) -> Attempt:
        where = sa.and_(schema.attempts.c.run == run, schema.attempts.c.index == index)
        with self._db.write(("run", run)) as connection:
            row = connection.execute(sa.select(schema.attempts).where(where)).mappings().first()
            if row is None:
                raise NotFoundError(f"run {run} has no attempt {index}")
            attempt = schema.changed(Attempt, schema.record(Attempt, row), fields)
            connection.execute(_set(schema.attempts, attempt).where(where))
        return attempt

    def attempts(self, run: str) -> list[Attempt]:
        table = schema.attempts
        query = sa.select(table).where(table.c.run == run).order_by(table.c.index)
        with self._db.read() as connection:
            return [schema.record(Attempt, row) for row in connection.execute(query).mappings()]

    def add_events(self, events: Iterable[Event]) -> None:
        self._append(schema.events, list(events))

    def events(self, run: str, kind: str | None = None, after: int = 0) -> list[Event]:
        table = schema.events
        query = sa.select(table).where(table.c.run == run, table.c.seq > after).order_by(table.c.seq)
        if kind is not None:
            query = query.where(table.c.kind == kind)
        with self._db.read() as connection:
            return [schema.record(Event, row) for row in connection.execute(query).mappings()]

    def add_metrics(self, metrics: Iterable[Metric]) -> None:
        self._append(schema.metrics, list(metrics))

    def metrics(self, run: str, name: str | None = None) -> list[Metric]:
        table = schema.metrics
        query = sa.select(table).where(table.c.run == run).order_by(table.c.seq)
        if name is not None:
            query = query.where(table.c.name == name)
        with self._db.read() as connection:
            return [schema.record(Metric, row) for row in connection.execute(query).mappings()]

    def _append(self, table: sa.Table, items: Sequence[Event] | Sequence[Metric]) -> None:
        """Insert in order, so that within a run a higher `seq` is never seen before a lower one."""
        if not items:
            return
        rows = [schema.values(item) for item in items]
        runs = sorted({item.run for item in items})
        with self._db.write(*(("run", run) for run in runs)) as connection:
            for run in runs:
                _one_run(connection, run)
            connection.execute(sa.insert(table), rows)


def _runs(connection: sa.Connection, where: sa.ColumnElement[bool], limit: int) -> list[Run]:
    query = sa.select(schema.runs).where(where).order_by(*_NEWEST_FIRST).limit(limit)
    return [schema.record(Run, row) for row in connection.execute(query).mappings()]


def _one_run(connection: sa.Connection, id: str) -> Run:
    found = _runs(connection, schema.runs.c.id == id, limit=1)
    if not found:
        raise NotFoundError(f"no run has the id {id!r}")
    return found[0]


def _insert(connection: sa.Connection, table: sa.Table, item: Run | Attempt, problem: str) -> None:
    item = schema.changed(type(item), item, {})
    try:
        connection.execute(sa.insert(table).values(schema.values(item)))
    except ConstraintError:
        raise SpecError(problem) from None


def _set(table: sa.Table, item: Run | Attempt) -> sa.Update:
    return sa.update(table).values(schema.values(item))
