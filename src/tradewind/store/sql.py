"""The store on SQLAlchemy Core."""

from types import TracebackType
from typing import Self

from tradewind.store.engine import Database
from tradewind.store.sql_models import ModelTables
from tradewind.store.sql_runs import RunTables


class SqlStore(RunTables, ModelTables):
    """Store on SQLite or PostgreSQL; may be shared by threads, and opened anew by each process."""

    def __init__(self, url: str) -> None:
        self._db = Database(url)
        self.url = self._db.url

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
