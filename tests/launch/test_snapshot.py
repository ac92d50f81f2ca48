"""Snapshots: equal content has one digest, comes back as it was, and is not read twice for nothing."""

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.launch.conftest import commit, git, write
from tradewind.errors import IntegrityError, NotFoundError
from tradewind.launch import snapshot as module
from tradewind.launch.file import File
from tradewind.launch.snapshot import (
    Cached,
    Entry,
    Tree,
    cached_digest,
    checkout,
    load_cache,
    save_cache,
    snapshot,
)
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


def content(folder: Path) -> dict[str, object]:
    """Everything below a folder but git's own: bytes and executable bit, or where a link points."""
    found: dict[str, object] = {}
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
    monkeypatch.setattr(module, "_RACY_NS", 0)
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
    assert load_cache(next(cache.glob("*.msgpack"))).keys() == {"a.py", "b.py", "d.py"}


def test_a_change_that_hides_its_time_is_seen(
    root: Path, tmp_path: Path, blobs: CountingBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes of the same size with the old modification time put back are read again."""
    monkeypatch.setattr(module, "_RACY_NS", 0)
    path = root / "a.py"
    path.write_text("x = 1")
    before = path.stat()
    first = snapshot(root, blobs, tmp_path / "cache")
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_text("x = 2")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert snapshot(root, blobs, tmp_path / "cache") != first


def test_a_file_changed_within_a_tick_of_the_clock_is_not_trusted(tmp_path: Path, blobs: LocalBlobs) -> None:
    """A file that could change once more and look the same is not remembered; a moment later it is."""
    digest = blobs.put(b"x")
    seen_ns = time.time_ns()
    racy = File("racy", 1, stat.S_IFREG, seen_ns, seen_ns - 10_000_000, 1)
    calm = File("calm", 1, stat.S_IFREG, seen_ns, seen_ns - 100_000_000, 1)
    path = tmp_path / "cache.msgpack"
    save_cache(path, [racy, calm], {"racy": digest, "calm": digest}, seen_ns)
    cache = load_cache(path)
    assert cached_digest(racy, cache) is None
    assert cached_digest(calm, cache) == digest
    for field in ("size", "mtime_ns", "ctime_ns", "inode"):
        changed = calm._replace(**{field: getattr(calm, field) + 1})
        assert cached_digest(changed, cache) is None, field
    assert Cached.of(calm, digest) == cache["calm"]


def test_a_cache_is_worth_only_time(
    root: Path, tmp_path: Path, blobs: CountingBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is damaged, of another blob store, or about blobs that are gone costs a read and no more."""
    monkeypatch.setattr(module, "_RACY_NS", 0)
    cache = tmp_path / "cache"
    write(root, {"a.py": "1"})
    first = snapshot(root, blobs, cache)
    file = next(cache.glob("*.msgpack"))
    for junk in (b"", b"\xc1junk", msgspec.msgpack.encode({"a.py": [1, 2]})):
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


@pytest.mark.parametrize("entries", ESCAPES, ids=lambda entries: " ".join(repr(e.path) for e in entries))
def test_a_manifest_that_would_write_elsewhere_is_refused(
    tmp_path: Path, blobs: LocalBlobs, entries: list[Entry]
) -> None:
    """No path leaves the checkout, passes through a link or a file, or is written twice; nothing is written."""
    digest = blobs.put(b"evil")
    entries = [msgspec.structs.replace(e, digest="" if e.link else digest) for e in entries]
    evil = blobs.put(msgspec.json.encode(Tree(1, (Entry("good", digest), *entries))))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(IntegrityError, match=evil):
        checkout(evil, blobs, out)
    assert list(out.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blobs", "out"]


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
