"""The snapshot benchmark counts what it says it counts."""

from pathlib import Path

from bench.snapshot import Project, size
from tradewind.launch.tree import cut, read_tree


def test_what_moves_after_an_edit_is_that_edit(tmp_path: Path) -> None:
    """A layer holds the edited file alone; the blob store gets its bytes, one part of the manifest and its root."""
    project = Project(tmp_path, files=400)
    layer, stored = project.move()
    files = [path.stat().st_size for path in project.paths]
    parts = read_tree(project.snapshot(), project.blobs).parts
    root = sum(len(digest) for digest in parts)
    assert 0 < layer < 0.05
    assert root < stored * sum(files) < 2 * root + 200 * max_length(project) + max(files)


def test_a_snapshot_s_time_holds_its_imports(tmp_path: Path) -> None:
    """What is measured starts before the first import."""
    project = Project(tmp_path, files=20)
    whole = project.take()
    assert 0 < project.imports[0] < whole


def max_length(project: Project) -> int:
    """Entries of the longest part of the manifest."""
    paths = sorted(str(path.relative_to(project.root)) for path in project.paths)
    return max(end - start for start, end in cut(paths))


def test_the_whole_copy_has_every_file_and_no_history(tmp_path: Path) -> None:
    """Tar copies the bytes of all files, and nothing of git's."""
    project = Project(tmp_path, files=40)
    project.copy()
    assert size(tmp_path / "tar") == sum(path.stat().st_size for path in project.paths)
