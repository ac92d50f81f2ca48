"""Small real projects: a git repository, and a home folder of their own."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.services.agents import kill_agents
from tradewind.store.blobs import digest_of


class Digests:
    """A blob store that only says under which digests it would keep what it gets."""

    def put(self, data: bytes) -> str:
        """The digest of these bytes."""
        return digest_of(data)

    def put_all(self, many: Sequence[bytes]) -> list[str]:
        """The digests of all of these bytes."""
        return [digest_of(data) for data in many]


IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder that does not exist yet; no configuration from outside reaches git or the store."""
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    for name in ("TRADEWIND_STORE", "TRADEWIND_BLOBS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("TRADEWIND_HOME", str(folder))
    yield folder
    kill_agents()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty git repository."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    return folder


def git(folder: Path, *args: str) -> str:
    """Run git in a folder."""
    done = subprocess.run(
        ["git", "-C", folder, *args], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


def commit(folder: Path) -> None:
    """Commit everything that is not ignored."""
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")


def write(root: Path, files: dict[str, str]) -> None:
    """Write files by path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
