"""Snapshots: equal content has one digest, comes back as it was, and is not read twice for nothing."""

import os
import random
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.launch.conftest import Digests, commit, git, write
from tradewind.errors import IntegrityError, NotFoundError, SpecError
from tradewind.launch import recall
from tradewind.launch.file import File
from tradewind.launch.recall import Part, load
from tradewind.launch.snapshot import checkout, put_parts, snapshot
from tradewind.launch.tree import Entry, Whole, put_tree, read_tree
from tradewind.store.blobs import LocalBlobs, digest_of


class CountingBlobs(LocalBlobs):
    """A blob store on disk that remembers which files it was given to read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: list[str] = []

    def put_files(self, paths: Sequence[str | os.PathLike[str]]) -> list[str]:
        self.read += sorted(Path(path).name for path in paths)
        return super().put_files(paths)

    def taken(self) -> list[str]:
        """The files read since the last call."""
        read, self.read = self.read, []
        return read


@pytest.fixture
def blobs(tmp_path: Path) -> CountingBlobs:
    """An empty blob store."""
    return CountingBlobs(tmp_path / "blobs")


def content(folder: Path) -> dict[str, tuple[bytes, bool] | str]:
    """Everything below a folder but git's own: bytes and executable bit, or where a link points."""
    found: dict[str, tuple[bytes, bool] | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and not name.startswith(".git/"):
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
    return found


def sample(root: Path) -> None:
    """A project with an executable, links, an empty file and a name that is not ASCII."""
    write(
        root, {"main.py": "print(1)\n", "run.sh": "#!/bin/sh\n", "pkg/empty": "", "caf\u00e9.txt": "\u20ac"}
    )
    (root / "run.sh").chmod(0o755)
    (root / "latest").symlink_to("pkg/empty")
    (root / "pkg/dangling").symlink_to("../none")
    (root / "pkg/folder").symlink_to("..")


def test_equal_bytes_have_one_digest(root: Path, tmp_path: Path, blobs: LocalBlobs) -> None:
    """Where, when, in which order and with which umask files were made does not matter; committed or not neither."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    git(other, "init", "-q")
    sample(root)
    first = snapshot(root, blobs)
    commit(root)
    (other / "pkg").mkdir()
    for path in sorted(root.rglob("*"), reverse=True):
        if ".git" not in path.parts and (path.is_symlink() or path.is_file()):
            target = other / path.relative_to(root)
            target.symlink_to(os.readlink(path)) if path.is_symlink() else target.write_bytes(
                path.read_bytes()
            )
    (other / "run.sh").chmod(0o700)
    (other / "main.py").chmod(0o600)
    assert snapshot(root, blobs) == snapshot(other, blobs) == first
    assert snapshot(other, LocalBlobs(tmp_path / "blobs2")) == first


@pytest.mark.parametrize("change", ["content", "name", "bit", "link", "more", "less", "kind"])
def test_any_difference_has_another_digest(root: Path, blobs: LocalBlobs, change: str) -> None:
    """A changed byte, name, executable bit or link target is a different snapshot."""
    sample(root)
    first = snapshot(root, blobs)
    match change:
        case "content":
            (root / "main.py").write_text("print(2)\n")
        case "name":
            (root / "main.py").rename(root / "nain.py")
        case "bit":
            (root / "run.sh").chmod(0o644)
        case "link":
            (root / "latest").unlink()
            (root / "latest").symlink_to("main.py")
        case "more":
            write(root, {"pkg/more": ""})
        case "less":
            (root / "pkg/empty").unlink()
        case "kind":
            (root / "latest").unlink()
            write(root, {"latest": "pkg/empty"})
    assert snapshot(root, blobs) != first


def test_a_checkout_is_what_was_there(root: Path, tmp_path: Path, blobs: LocalBlobs) -> None:
    """Bytes, executable bits and links come back exactly, and the copy has the digest of the original."""
    sample(root)
    commit(root)
    digest = snapshot(root, blobs)
    out = tmp_path / "out"
    checkout(digest, blobs, out)
    assert content(out) == content(root)
    git(out, "init", "-q")
    assert snapshot(out, blobs) == digest


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..") and not name.lower().startswith(".git")
)
FILES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    st.tuples(st.binary(max_size=64), st.booleans()),
    max_size=6,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES)
def test_any_tree_comes_back(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, ...], tuple[bytes, bool]]
) -> None:
    """Whatever the names and bytes, a checkout holds them exactly."""
    base = tmp_path_factory.mktemp("tree")
    root, blobs = base / "root", LocalBlobs(base / "blobs")
    root.mkdir()
    git(root, "init", "-q")
    for parts, (data, executable) in files.items():
        path = root.joinpath(*parts)
        if path.is_dir() or any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if executable else 0o644)
    checkout(snapshot(root, blobs), blobs, base / "out")
    assert content(base / "out") == content(root)


def test_what_did_not_change_is_not_read_again(
    root: Path, tmp_path: Path, blobs: CountingBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache a second snapshot reads only what changed, and finds the same digest."""
    monkeypatch.setattr(recall, "_RACY_NS", 0)
    cache = tmp_path / "cache"
    write(root, {"a.py": "1", "b.py": "2", "c.py": "3"})
    first = snapshot(root, blobs, cache)
    assert blobs.taken() == ["a.py", "b.py", "c.py"]
    assert snapshot(root, blobs, cache) == first
    assert blobs.taken() == []
    (root / "b.py").write_text("22")
    (root / "c.py").unlink()
    write(root, {"d.py": "4"})
    second = snapshot(root, blobs, cache)
    assert blobs.taken() == ["b.py", "d.py"]
    assert second == snapshot(root, blobs) != first
    assert [file.path for file in load(next(cache.glob("*.msgpack"))).files] == ["a.py", "b.py", "d.py"]


def test_a_change_that_hides_its_time_is_seen(
    root: Path, tmp_path: Path, blobs: CountingBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes of the same size with the old modification time put back are read again."""
    monkeypatch.setattr(recall, "_RACY_NS", 0)
    path = root / "a.py"
    path.write_text("x = 1")
    before = path.stat()
    first = snapshot(root, blobs, tmp_path / "cache")
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_text("x = 2")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert snapshot(root, blobs, tmp_path / "cache") != first


def test_a_cache_is_worth_only_time(
    root: Path, tmp_path: Path, blobs: CountingBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is damaged, of another blob store, or about blobs that are gone costs a read and no more."""
    monkeypatch.setattr(recall, "_RACY_NS", 0)
    cache = tmp_path / "cache"
    write(root, {"a.py": "1"})
    first = snapshot(root, blobs, cache)
    file = next(cache.glob("*.msgpack"))
    for junk in (b"", b"\xc1junk", msgspec.msgpack.encode({"a.py": [1, 2]}), msgspec.msgpack.encode([1, 2])):
        file.write_bytes(junk)
        assert snapshot(root, blobs, cache) == first
    blobs.taken()
    for blob in (tmp_path / "blobs").rglob("*"):
        blob.unlink() if blob.is_file() else None
    assert snapshot(root, blobs, cache) == first
    assert blobs.taken() == ["a.py"]
    other = CountingBlobs(tmp_path / "blobs2")
    assert snapshot(root, other, cache) == first
    assert other.taken() == ["a.py"]
    checkout(first, other, tmp_path / "out")


ESCAPES = [
    [Entry("../x")],
    [Entry("a/../../x")],
    [Entry("a/../x")],
    [Entry("/tmp/x")],
    [Entry("")],
    [Entry(".")],
    [Entry("a/./x")],
    [Entry("a//x")],
    [Entry("x\0y")],
    [Entry("..", link="/etc")],
    [Entry("d", link="/etc"), Entry("d/x")],
    [Entry("d", link="/etc"), Entry("d/deep/x")],
    [Entry("d"), Entry("d/x")],
    [Entry("x"), Entry("x")],
    [Entry("x", link="/etc"), Entry("x")],
]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in parts"])
@pytest.mark.parametrize("entries", ESCAPES, ids=lambda entries: " ".join(repr(e.path) for e in entries))
def test_a_manifest_that_would_write_elsewhere_is_refused(
    tmp_path: Path, blobs: LocalBlobs, entries: list[Entry], whole: bool
) -> None:
    """No path leaves the checkout, passes through a link or a file, or is written twice; nothing is written."""
    digest = blobs.put(b"evil")
    entries = [msgspec.structs.replace(e, digest="" if e.link else digest) for e in entries]
    entries = [Entry("good", digest), *entries]
    evil = blobs.put(msgspec.json.encode(Whole(tuple(entries)))) if whole else put_tree(entries, blobs)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(IntegrityError, match=evil):
        checkout(evil, blobs, out)
    assert list(out.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blobs", "out"]


def many(root: Path) -> None:
    """A project whose manifest has several parts."""
    write(root, {f"pkg{i % 7}/module{i}.py": f"x = {i}" for i in range(300)})


def manifest_blobs(blobs: LocalBlobs, digest: str) -> set[str]:
    """The blobs of a snapshot's manifest."""
    return {digest, *read_tree(digest, blobs).parts}


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_an_edit_writes_one_part_of_the_manifest(
    root: Path, tmp_path: Path, blobs: CountingBlobs, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """What one file's change stores is that file, the part that lists it and the root; the rest is as it was."""
    monkeypatch.setattr(recall, "_RACY_NS", 0)
    many(root)
    before = manifest_blobs(blobs, snapshot(root, blobs, tmp_path / "cache"))
    stored = count(tmp_path / "blobs")
    assert len(before) > 4
    file = root / "pkg3/module3.py"
    match change:
        case "edit":
            file.write_text("edited = 1")
        case "add":
            write(root, {"pkg3/module3a.py": "added = 1"})
        case "remove":
            file.unlink()
        case "rename":
            file.rename(root / "pkg3/module3_renamed.py")
    digest = snapshot(root, blobs, tmp_path / "cache")
    after = manifest_blobs(blobs, digest)
    assert len(after - before) == 2
    assert count(tmp_path / "blobs") == stored + (3 if change in ("edit", "add") else 2)
    assert digest == looked_at(root)
    checkout(digest, blobs, tmp_path / "out")
    assert content(tmp_path / "out") == content(root)


def count(folder: Path) -> int:
    """Files below a folder."""
    return sum(path.is_file() for path in folder.rglob("*"))


def looked_at(root: Path) -> str:
    """The digest of what is there, worked out from the files alone."""
    entries = []
    for path, found in content(root).items():
        if isinstance(found, str):
            entries.append(Entry(path, link=found))
        else:
            data, executable = found
            entries.append(Entry(path, digest_of(data), len(data), executable))
    return put_tree(entries, Digests())


@pytest.mark.parametrize("recent", [True, False])
def test_whatever_happened_since_a_cache_never_changes_the_digest(
    root: Path, tmp_path: Path, blobs: CountingBlobs, monkeypatch: pytest.MonkeyPatch, recent: bool
) -> None:
    """After many kinds of changes at once, one after the other, it is the digest of what is there."""
    monkeypatch.setattr(recall, "_RACY_NS", 10**15 if recent else 0)
    many(root)
    changes = random.Random(1)
    for number in range(4):
        paths = sorted(path for path in root.glob("pkg*/*") if not path.is_symlink())
        for path in changes.sample(paths, 12):
            match changes.randrange(5):
                case 0:
                    path.write_text(f"y = {number}")
                case 1:
                    path.unlink()
                case 2:
                    path.chmod(0o755)
                case 3:
                    path.rename(path.with_name(f"moved{number}{path.name}"))
                case _:
                    path.unlink()
                    path.symlink_to(f"../main{number}.py")
        assert snapshot(root, blobs, tmp_path / "cache") == looked_at(root)
        assert snapshot(root, blobs, tmp_path / "cache") == looked_at(root)


def test_a_file_that_was_read_again_is_listed_as_it_was_read(blobs: CountingBlobs) -> None:
    """A part is as before only when the digests of all of its files were known before any was read."""
    file = File("a", 1, stat.S_IFREG, 5, 5, 1)
    stored = {"a": ((file,), Part(1, "before"))}
    assert put_parts([file], ["d1"], ["d1"], stored, blobs) == (Part(1, "before"),)
    (part,) = put_parts([file], [""], ["d1"], stored, blobs)
    assert blobs.get(part.digest) == b'[{"path":"a","digest":"d1","size":1}]'


def test_a_part_that_was_lost_is_stored_again(
    root: Path, tmp_path: Path, blobs: CountingBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot whose digest is returned can be checked out, whatever was deleted since the last one."""
    monkeypatch.setattr(recall, "_RACY_NS", 0)
    many(root)
    digest = snapshot(root, blobs, tmp_path / "cache")
    for lost in (*read_tree(digest, blobs).parts[:2], digest):
        next((tmp_path / "blobs").rglob(lost.removeprefix("sha256:"))).unlink()
    blobs.taken()
    assert snapshot(root, blobs, tmp_path / "cache") == digest
    assert blobs.taken() == []
    checkout(digest, blobs, tmp_path / "out")
    assert content(tmp_path / "out") == content(root)


def test_a_snapshot_of_the_first_version_comes_back(root: Path, tmp_path: Path, blobs: LocalBlobs) -> None:
    """A stored run refers to a manifest that is whole; its code is checked out as ever."""
    sample(root)
    entries = read_tree(snapshot(root, blobs), blobs).entries
    old = blobs.put(msgspec.json.encode({"version": 1, "entries": entries}))
    assert checkout(old, blobs, tmp_path / "out").entries == entries
    assert content(tmp_path / "out") == content(root)


def test_an_error_of_git_s_reaches_who_takes_a_snapshot(root: Path, blobs: LocalBlobs) -> None:
    """What goes wrong while files are listed is raised, as it is from `list_files`."""
    write(root, {"main.py": ""})
    commit(root)
    (root / ".git/index").write_bytes(b"junk")
    with pytest.raises(SpecError, match=r"git ls-files failed: .*index"):
        snapshot(root, blobs)


def test_a_damaged_snapshot_is_refused(root: Path, tmp_path: Path, blobs: LocalBlobs) -> None:
    """Bytes that are not those of the digest, a manifest that is none, and a missing blob are errors."""
    write(root, {"a.py": "1"})
    digest = snapshot(root, blobs)
    file = digest_of(b"1").removeprefix("sha256:")
    path = next((tmp_path / "blobs").rglob(file))
    path.write_bytes(b"2")
    with pytest.raises(IntegrityError, match="damaged"):
        checkout(digest, blobs, tmp_path / "out1")
    path.unlink()
    with pytest.raises(NotFoundError):
        checkout(digest, blobs, tmp_path / "out2")
    with pytest.raises(IntegrityError, match="not a tree manifest"):
        checkout(blobs.put(b"[]"), blobs, tmp_path / "out3")
