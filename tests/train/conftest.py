"""What several tests of training need."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def shm(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, as in practice, gone afterwards."""
    folder = Path("/dev/shm", f"tradewind-test-{os.getpid()}-{tmp_path.name}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
