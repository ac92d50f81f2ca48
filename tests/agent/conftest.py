"""A store with one run, and nothing of the environment outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tradewind.store import Run, Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store on disk that knows the run `r`."""
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as opened:
        opened.add_run(Run(id="r", name="r", created_s=1.0))
        yield opened
