"""Which files are the code of a project: git's own answer, on real repositories."""

import os
import shutil
from pathlib import Path

import pytest

from tests.launch.conftest import commit, git, write
from tradewind.errors import SpecError
from tradewind.launch import files
from tradewind.launch.files import list_files, project_root, walk


def names(root: Path) -> list[str]:
    """The paths that are listed."""
    return [file.path for file in list_files(root)]


def test_tracked_modified_and_new_files_but_not_ignored_ones(root: Path) -> None:
    """What is listed is what is in the working tree now and not ignored, whatever the index says of it."""
    write(
        root,
        {".gitignore": "*.log\ndata/\n", "kept.py": "1", "changed.py": "1", "gone.py": "1", "a/b.py": "1"},
    )
    write(root, {"tracked.log": "although ignored"})
    commit(root)
    git(root, "add", "-f", "tracked.log")
    write(root, {"changed.py": "22", "new.py": "1", "a/new.py": "1", "noise.log": "1", "data/big.bin": "1"})
    write(root, {"staged.py": "1"})
    git(root, "add", "staged.py")
    (root / "gone.py").unlink()
    listed = list_files(root)
    assert [f.path for f in listed] == [
        ".gitignore", "a/b.py", "a/new.py", "changed.py", "kept.py", "new.py", "staged.py", "tracked.log",
    ]  # fmt: skip
    assert {f.path: f.size for f in listed}["changed.py"] == 2


def test_ignored_by_every_rule_of_git(root: Path) -> None:
    """Nested .gitignore files, negations, .git/info/exclude and the user's own excludes count."""
    write(
        root,
        {".gitignore": "*.tmp\n", "sub/.gitignore": "!keep.tmp\nsecret\n", "excludes": "excludes\nmine\n"},
    )
    git(root, "config", "core.excludesFile", str(root / "excludes"))
    (root / ".git/info/exclude").write_text("local\n")
    write(root, {"a.tmp": "", "sub/b.tmp": "", "sub/keep.tmp": "", "sub/secret": "", "mine": "", "local": ""})
    assert names(root) == [".gitignore", "sub/.gitignore", "sub/keep.tmp"]


def test_a_nested_repository_is_listed_by_its_own_rules(root: Path) -> None:
    """A repository inside of the project, unknown to it, gives the files that it would list itself."""
    inner = root / "vendor" / "inner"
    inner.mkdir(parents=True)
    git(inner, "init", "-q")
    write(inner, {".gitignore": "built\n", "code.py": "", "built": ""})
    write(root, {"main.py": ""})
    assert names(root) == ["main.py", "vendor/inner/.gitignore", "vendor/inner/code.py"]


def test_a_submodule_gives_its_files_and_an_empty_one_none(root: Path, tmp_path: Path) -> None:
    """A submodule's working tree is part of the code, with its changes; one not checked out adds nothing."""
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "-q")
    write(library, {"lib.py": "1"})
    commit(library)
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
    commit(root)
    write(root, {"sub/new.py": "1"})
    assert names(root) == [".gitmodules", "sub/lib.py", "sub/new.py"]
    git(root, "submodule", "--quiet", "deinit", "-f", "sub")
    assert names(root) == [".gitmodules"]


def test_links_are_listed_as_links_and_never_followed(root: Path, tmp_path: Path) -> None:
    """A link to a file, a folder or nothing is itself content; what lies behind it is not."""
    write(tmp_path / "outside", {"secret": "s"})
    write(root, {"real/a.py": ""})
    for name, target in [
        ("file", "real/a.py"),
        ("folder", "../outside"),
        ("nowhere", "none"),
        ("loop", "loop"),
    ]:
        (root / name).symlink_to(target)
    assert {f.path: f.link for f in list_files(root)} == {
        "file": "real/a.py", "folder": "../outside", "nowhere": "none", "loop": "loop", "real/a.py": None,
    }  # fmt: skip


def test_a_tracked_folder_that_became_a_link(root: Path, tmp_path: Path) -> None:
    """Files that git still tracks below what is now a link are gone, not read through the link."""
    write(root, {"data/x": "1", "data/deep/y": "1", "main.py": ""})
    commit(root)
    shutil.move(root / "data", tmp_path / "elsewhere")
    (root / "data").symlink_to(tmp_path / "elsewhere")
    assert names(root) == ["data", "main.py"]


def test_a_tracked_file_that_became_a_folder(root: Path) -> None:
    """The folder's files are listed, and the file that it took the place of is not."""
    write(root, {"conf": "1"})
    commit(root)
    (root / "conf").unlink()
    write(root, {"conf/a": "1"})
    assert names(root) == ["conf/a"]


def test_odd_names_and_things_that_are_not_files(root: Path) -> None:
    """Any name that is text is kept as it is; pipes and sockets are not content."""
    odd = ["  ", '"q"', "a\nb", "back\\slash", "caf\u00e9", "-dash"]
    write(root, dict.fromkeys(odd, ""))
    os.mkfifo(root / "pipe")
    assert names(root) == sorted(odd)


@pytest.mark.parametrize("as_link", [False, True])
def test_a_name_that_is_not_utf8_is_refused_by_name(root: Path, as_link: bool) -> None:
    """A manifest is JSON: a file name or link target outside of UTF-8 is an error that shows it."""
    base = os.fsencode(root)
    os.symlink(b"caf\xe9", base + b"/link") if as_link else Path(os.fsdecode(base + b"/caf\xe9")).touch()
    with pytest.raises(SpecError, match=r"caf.udce9' is not UTF-8; rename it or ignore"):
        list_files(root)
    (root / ".gitignore").write_bytes(b"caf\xe9\nlink\n")
    assert names(root) == [".gitignore"]


@pytest.mark.parametrize("link_to_home", [False, True])
def test_the_state_folder_is_never_part_of_the_code(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link_to_home: bool
) -> None:
    """A home folder inside of the project, also one named through a link, is left out although not ignored."""
    write(root, {"main.py": "", "state/store.db": "", "state/runs/1/code/main.py": "", "statement.py": ""})
    (tmp_path / "way").symlink_to(root / "state")
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "way" if link_to_home else root / "state"))
    assert names(root) == ["main.py", "statement.py"]
    shutil.rmtree(root / ".git")
    assert names(root) == ["main.py", "statement.py"]
    assert sorted(walk(str(root), str(root / "state"))) == names(root)


def test_without_git_all_but_hidden_files_and_products(tmp_path: Path) -> None:
    """Where there is no repository, hidden files, virtual environments and build products are left out."""
    root = tmp_path / "plain"
    write(
        root, {"main.py": "", "pkg/a.py": "", "data.csv": "", ".env": "", ".cache/x": "", "pkg/.hidden": ""}
    )
    write(root, {"pkg/__pycache__/a.pyc": "", "node_modules/x.js": "", "build/x": "", "mine/pyvenv.cfg": ""})
    write(root, {"mine/lib/x.py": ""})
    (root / "linked").symlink_to("pkg")
    assert names(root) == ["data.csv", "linked", "main.py", "pkg/a.py"]


def test_where_git_is_not_installed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git a plain folder is walked, and a repository is refused: its ignore rules cannot be known."""
    write(root, {"main.py": ""})
    write(tmp_path / "plain", {"main.py": ""})
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert names(tmp_path / "plain") == ["main.py"]
    assert project_root(tmp_path / "plain" / "main.py", tmp_path) == tmp_path
    with pytest.raises(SpecError, match="git is not installed"):
        list_files(root)


def test_a_repository_that_git_will_not_read_is_an_error(root: Path) -> None:
    """A damaged index is reported with git's words, not answered with every file that lies around."""
    write(root, {"main.py": ""})
    commit(root)
    (root / ".git/index").write_bytes(b"junk")
    with pytest.raises(SpecError, match=r"git ls-files failed: .*index"):
        list_files(root)


def test_variables_of_a_git_hook_do_not_point_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started from a hook of another repository, the project's own is asked."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    write(root, {"jobs/main.py": ""})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert names(root) == ["jobs/main.py"]
    assert project_root(root / "jobs/main.py", tmp_path) == root


def test_the_root_of_a_script(root: Path, tmp_path: Path) -> None:
    """With git it is the work tree; without, the working folder over the script, else the script's folder."""
    write(root, {"a/b/main.py": ""})
    assert project_root(root / "a/b/main.py", tmp_path) == root
    write(tmp_path / "plain", {"src/main.py": ""})
    script = tmp_path / "plain/src/main.py"
    assert project_root(script, tmp_path / "plain") == tmp_path / "plain"
    assert project_root(script, root) == script.parent


def test_too_much_to_be_code(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the limits the error says so, and a folder without git is not walked to its end first."""
    write(root, {f"f{n}": "1" for n in range(4)})
    monkeypatch.setattr(files, "MAX_FILES", 3)
    with pytest.raises(SpecError, match="over 3 files or 2 GiB"):
        list_files(root)
    shutil.rmtree(root / ".git")
    walked = []
    monkeypatch.setattr(files, "walk", lambda *_: (walked.append(n) or f"f{n % 4}" for n in range(1000)))
    with pytest.raises(SpecError, match="too much to be code"):
        list_files(root)
    assert len(walked) == 4
    monkeypatch.setattr(files, "MAX_FILES", 10)
    monkeypatch.setattr(files, "MAX_BYTES", 3)
    with pytest.raises(SpecError, match=r"list it in \.gitignore"):
        list_files(root)
