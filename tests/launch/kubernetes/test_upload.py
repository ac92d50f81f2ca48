"""Code that goes through a blob store: all of it once, then what an edit changed."""

from pathlib import Path

import pytest

from tests.launch.conftest import write
from tradewind.launch.kubernetes import fetch
from tradewind.launch.kubernetes.submit import upload
from tradewind.launch.snapshot import checkout, snapshot
from tradewind.launch.tree import read_tree
from tradewind.store.blobs import LocalBlobs


class Watched(LocalBlobs):
    """A blob store that remembers what it was given, in order."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.given: list[str] = []

    def put(self, data: bytes) -> str:
        """Keep bytes."""
        self.given.append(super().put(data))
        return self.given[-1]


def test_an_edit_sends_its_file_and_one_part_of_the_manifest(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files go first, then the parts that list them, the root last; a pod lays out what was submitted."""
    here, there = LocalBlobs(tmp_path / "here"), Watched(tmp_path / "there")
    write(root, {f"lib/module{i}.py": f"x = {i}" for i in range(300)})
    first = snapshot(root, here)
    assert upload(first, here, there) == 300 + len(read_tree(first, here).parts)
    there.given.clear()
    write(root, {"lib/module7.py": "edited = 1"})
    second = snapshot(root, here)
    assert upload(second, here, there) == 2
    new = set(read_tree(second, here).parts) - set(read_tree(first, here).parts)
    assert there.given[1:] == [*new, second]
    monkeypatch.setenv("TRADEWIND_BLOBS", there.url)
    assert fetch.main(second, str(tmp_path / "pod"), str(tmp_path / "checkpoints")) == 0
    assert (tmp_path / "pod/lib/module7.py").read_text() == "edited = 1"
    assert len(checkout(second, there, tmp_path / "out").entries) == 300


def test_what_the_store_lost_is_sent_again(root: Path, tmp_path: Path) -> None:
    """A file or a part that is not there any more is, after the same code is submitted again."""
    here, there = LocalBlobs(tmp_path / "here"), LocalBlobs(tmp_path / "there")
    write(root, {f"lib/module{i}.py": f"x = {i}" for i in range(300)})
    digest = snapshot(root, here)
    upload(digest, here, there)
    for blob in sorted((tmp_path / "there").rglob("*"))[::7]:
        blob.unlink() if blob.is_file() else None
    assert upload(digest, here, there) > 0
    assert len(checkout(digest, there, tmp_path / "out").entries) == 300
