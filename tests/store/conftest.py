"""The store's tests run on both databases, and the blobs' tests on disk and on S3."""

import pathlib
from collections.abc import Iterator

import pytest

from tradewind.store import Run, Store, open_store


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    """URL of an empty store, once on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with open_store(store_url) as store:
        yield store


@pytest.fixture
def run(store: Store) -> Run:
    return store.add_run(Run(id="abc123", name="first", created_s=1.0))
