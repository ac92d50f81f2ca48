"""The snapshot benchmark counts what it says it counts."""

from pathlib import Path

from bench.snapshot import Project, size


def test_what_moves_after_an_edit_is_that_edit(tmp_path: Path) -> None:
    """A layer holds the edited file alone; the blob store gets its bytes, and the manifest of all files."""
    project = Project(tmp_path, files=200)
    layer, stored = project.move()
    files = sum(path.stat().st_size for path in project.paths)
    assert 0 < layer < 0.1
    assert 200 * 64 < stored * files < 200 * 160 + max(path.stat().st_size for path in project.paths)


def test_the_whole_copy_has_every_file_and_no_history(tmp_path: Path) -> None:
    """Tar copies the bytes of all files, and nothing of git's."""
    project = Project(tmp_path, files=40)
    project.copy()
    assert size(tmp_path / "tar") == sum(path.stat().st_size for path in project.paths)
