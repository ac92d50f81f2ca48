"""Model versions and aliases in tables."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from tradewind.errors import NotFoundError, SpecError
from tradewind.store import schema
from tradewind.store.engine import Database
from tradewind.store.records import Alias, ModelVersion

_VERSIONS = schema.model_versions
_MOVES = schema.alias_moves


class ModelTables:
    """The half of the store that is about models."""

    _db: Database

    def add_model_version(
        self, name: str, digest: str, path: str | Callable[[int], str], manifest: Mapping[str, Any]
    ) -> ModelVersion:
        _check_name("a model", name)
        with self._db.write(("model", name)) as connection:
            highest = connection.execute(
                sa.select(sa.func.max(_VERSIONS.c.version)).where(_VERSIONS.c.name == name)
            )
            version = (highest.scalar() or 0) + 1
            new = ModelVersion(
                name=name,
                version=version,
                digest=digest,
                path=path if isinstance(path, str) else path(version),
                created_s=time.time(),
                manifest=dict(manifest),
            )
            connection.execute(sa.insert(_VERSIONS).values(schema.values(new)))
        return new

    def model_version(self, ref: str) -> ModelVersion:
        name, at, which = ref.partition("@")
        with self._db.read() as connection:
            query = sa.select(_VERSIONS).where(_VERSIONS.c.name == name)
            if at and not which.isdecimal():
                moves = _moves(connection, name, which)
                if not moves:
                    raise NotFoundError(f"{ref}: {_why_absent(connection, name, f'alias {which!r}')}")
                which = str(moves[-1].version)
            if at:
                query = query.where(_VERSIONS.c.version == int(which))
            row = connection.execute(query.order_by(_VERSIONS.c.version.desc()).limit(1)).mappings().first()
            if row is None:
                raise NotFoundError(f"{ref}: {_why_absent(connection, name, f'version {which}')}")
            return schema.record(ModelVersion, row)

    def model_versions(self, name: str | None = None) -> list[ModelVersion]:
        query = sa.select(_VERSIONS)
        if name is not None:
            query = query.where(_VERSIONS.c.name == name)
        with self._db.read() as connection:
            found = [schema.record(ModelVersion, row) for row in connection.execute(query).mappings()]
        return sorted(found, key=lambda item: (item.name, item.version))

    def set_alias(self, name: str, alias: str, version: int, why: str, actor: str = "") -> Alias:
        _check_name("an alias", alias)
        new = Alias(name=name, alias=alias, version=version, t_s=time.time(), why=why, actor=actor)
        here = sa.and_(_VERSIONS.c.name == name, _VERSIONS.c.version == version)
        with self._db.write(("model", name)) as connection:
            if connection.execute(sa.select(_VERSIONS.c.seq).where(here)).first() is None:
                raise NotFoundError(
                    f"{name}@{version}: {_why_absent(connection, name, f'version {version}')}"
                )
            connection.execute(sa.insert(_MOVES).values(schema.values(new)))
        return new

    def aliases(self, name: str | None = None) -> list[Alias]:
        last = sa.select(sa.func.max(_MOVES.c.seq)).group_by(_MOVES.c.name, _MOVES.c.alias)
        query = sa.select(_MOVES).where(_MOVES.c.seq.in_(last))
        if name is not None:
            query = query.where(_MOVES.c.name == name)
        with self._db.read() as connection:
            found = [schema.record(Alias, row) for row in connection.execute(query).mappings()]
        return sorted(found, key=lambda item: (item.name, item.alias))

    def alias_history(self, name: str, alias: str) -> list[Alias]:
        with self._db.read() as connection:
            return _moves(connection, name, alias)


def _moves(connection: sa.Connection, name: str, alias: str) -> list[Alias]:
    query = sa.select(_MOVES).where(_MOVES.c.name == name, _MOVES.c.alias == alias).order_by(_MOVES.c.seq)
    return [schema.record(Alias, row) for row in connection.execute(query).mappings()]


def _why_absent(connection: sa.Connection, name: str, what: str) -> str:
    versions = connection.execute(sa.select(sa.func.count()).where(_VERSIONS.c.name == name)).scalar_one()
    if not versions:
        return f"there is no model {name!r}; `tradewind models` lists them"
    aliases = connection.execute(sa.select(_MOVES.c.alias).where(_MOVES.c.name == name).distinct()).scalars()
    known = ", ".join(sorted(aliases)) or "none"
    return f"model {name!r} has no {what}; it has versions 1 to {versions}, aliases: {known}"


def _check_name(kind: str, name: str) -> None:
    if (
        not name
        or "@" in name
        or "/" in name
        or name.isdecimal()
        or name != name.strip()
        or name.startswith(".")
    ):
        raise SpecError(f"{name!r} cannot name {kind}: write letters first, without '@' or '/'")
