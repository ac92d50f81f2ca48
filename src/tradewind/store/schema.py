"""Tables, and rows to and from records."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Dialect

SCHEMA_VERSION = 1
R = TypeVar("R", bound=msgspec.Struct)


class Json(sa.types.TypeDecorator[Any]):
    """Plain data as JSON text: the same bytes on every database."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        try:
            return msgspec.json.encode(value).decode()
        except UnicodeEncodeError:
            return msgspec.json.encode(_without_surrogates(value)).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return msgspec.json.decode(value)


class Real(sa.types.TypeDecorator[float]):
    """A double that may be NaN, which SQLite stores as NULL."""

    impl = sa.Double
    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        return math.nan if value is None else value


class Words(sa.types.TypeDecorator[str]):
    """Text from anywhere, such as a log: what a database refuses (NUL, lone surrogates) is escaped."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _without_surrogates(value.replace("\x00", "\\x00"))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


metadata = sa.MetaData()
Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    seq = sa.Column("seq", Key, primary_key=True, autoincrement=True)
    return sa.Table(name, metadata, seq, *items, sqlite_autoincrement=True)


schema = sa.Table("tradewind_schema", metadata, sa.Column("version", sa.Integer, nullable=False))

runs = _table(
    "runs",
    sa.Column("id", Words, nullable=False, unique=True),
    sa.Column("name", Words, nullable=False, index=True),
    sa.Column("state", Words, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False, index=True),
    sa.Column("started_s", sa.Double),
    sa.Column("ended_s", sa.Double),
    sa.Column("spec", Json, nullable=False),
    sa.Column("snapshot", Words),
    sa.Column("dir", Words, nullable=False),
    sa.Column("pid", sa.BigInteger),
    sa.Column("exit_code", sa.Integer),
)

attempts = _table(
    "attempts",
    sa.Column("run", Words, sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("index", sa.Integer, nullable=False),
    sa.Column("state", Words, nullable=False),
    sa.Column("started_s", sa.Double),
    sa.Column("ended_s", sa.Double),
    sa.Column("exit_code", sa.Integer),
    sa.Column("reason", Words),
    sa.UniqueConstraint("run", "index"),
)

events = _table(
    "events",
    sa.Column("run", Words, sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("rank", sa.Integer),
    sa.Column("t_s", sa.Double, nullable=False),
    sa.Column("kind", Words, nullable=False),
    sa.Column("data", Json, nullable=False),
    sa.Index("events_by_run", "run", "seq"),
)

metrics = _table(
    "metrics",
    sa.Column("run", Words, sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("name", Words, nullable=False),
    sa.Column("value", Real),
    sa.Column("t_s", sa.Double, nullable=False),
    sa.Index("metrics_by_run", "run", "seq"),
)

model_versions = _table(
    "model_versions",
    sa.Column("name", Words, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", Words, nullable=False),
    sa.Column("path", Words, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
    sa.Column("manifest", Json, nullable=False),
    sa.UniqueConstraint("name", "version"),
)

alias_moves = _table(
    "alias_moves",
    sa.Column("name", Words, nullable=False),
    sa.Column("alias", Words, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("t_s", sa.Double, nullable=False),
    sa.Column("why", Words, nullable=False),
    sa.Column("actor", Words, nullable=False),
    sa.ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"]),
    sa.Index("alias_moves_by_alias", "name", "alias", "seq"),
)
"""Where an alias points is its last move, so the two cannot disagree."""


def record(type_: type[R], row: sa.RowMapping) -> R:
    """The record in a row; columns that it does not have are ignored."""
    return type_(**{name: row[name] for name in type_.__struct_fields__})


def values(item: msgspec.Struct) -> dict[str, Any]:
    """The columns of a record; `seq` is the database's to give."""
    return {name: getattr(item, name) for name in item.__struct_fields__ if name != "seq"}


def changed(type_: type[R], item: R, fields: Mapping[str, Any]) -> R:
    """`item` with `fields` set; raises TypeError for a field it does not have or cannot hold."""
    new = msgspec.structs.replace(item, **fields)
    try:
        return msgspec.convert(msgspec.structs.asdict(new), type_)
    except msgspec.ValidationError as error:
        raise TypeError(f"{type_.__name__}: {error}") from None
