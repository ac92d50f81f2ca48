"""A recorded run, and a browser to look at its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.browser import browser
from tradewind.store import Store, open_store

__all__ = ["browser"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store of its own."""
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as opened:
        yield opened
