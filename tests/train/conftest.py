"""What tests of the state tiers share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, as in practice, empty again afterwards."""
    shm = Path("/dev/shm", f"tradewind-test-{os.getpid()}-{tmp_path.name}")
    yield shm
    for path in shm.glob("*") if shm.exists() else []:
        path.unlink()
    if shm.exists():
        shm.rmdir()
