"""Where the store is, and how to open it."""

import os

from tradewind import names
from tradewind.home import home
from tradewind.store.base import Store

__all__ = ["home", "open_store"]


def open_store(url: str | None = None) -> Store:
    """The store at `url` (`sqlite:///file.db`, `postgresql://user@host/db`, or a file's path).

    Without one: `$TRADEWIND_STORE`, else `sqlite:///$TRADEWIND_HOME/store.db`. Its tables are made on
    first use. Raises SpecError for a URL it does not know, and StoreError when it cannot be opened.
    """
    from tradewind.store.sql import SqlStore  # SQLAlchemy costs a tenth of a second: only who needs it pays

    return SqlStore(url or os.environ.get(names.ENV_STORE) or f"sqlite:///{home() / 'store.db'}")
