"""Blobs on local disk and on a real S3 server."""

import hashlib
import pathlib
from typing import NamedTuple

import pytest

from tradewind.errors import IntegrityError, NotFoundError, SpecError, StoreError
from tradewind.store import Blobs, LocalBlobs, ObjectBlobs, blobs, open_blobs

DIGEST = "sha256:" + hashlib.sha256(b"hello").hexdigest()


class Place(NamedTuple):
    blobs: Blobs
    folder: pathlib.Path  # where the blobs' bytes lie on this machine

    def file(self, digest: str) -> pathlib.Path:
        return self.folder / "sha256" / digest[7:9] / digest[7:]


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    if request.param == "local":
        return Place(open_blobs(str(tmp_path / "blobs")), tmp_path / "blobs")
    url, folder = request.getfixturevalue("s3_bucket")
    return Place(open_blobs(url), folder / "blobs")


@pytest.mark.parametrize(
    "data", [b"", b"hello", bytes(range(256)) * 50_000], ids=["empty", "small", "12 MiB"]
)
def test_bytes_come_back(place: Place, data: bytes, tmp_path: pathlib.Path) -> None:
    """What is put is what comes back, in memory and in files, under the digest of its content."""
    (tmp_path / "in").write_bytes(data)
    digest = place.blobs.put_file(tmp_path / "in")
    assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}" == place.blobs.put(data)
    assert place.blobs.get(digest) == data
    place.blobs.fetch(digest, tmp_path / "new folder" / "out")
    assert (tmp_path / "new folder" / "out").read_bytes() == data
    assert place.blobs.has(digest)


def test_many_files_are_kept_in_order(place: Place, tmp_path: pathlib.Path) -> None:
    """Files stored together come back each under its own digest, in the order given, equal ones once."""
    paths = [tmp_path / str(i) for i in range(20)]
    for i, path in enumerate(paths):
        path.write_bytes(b"%d" % (i // 2))
    digests = place.blobs.put_files(paths)
    assert [place.blobs.get(digest) for digest in digests] == [b"%d" % (i // 2) for i in range(20)]
    assert len(set(digests)) == 10
    assert place.blobs.put_files([]) == []


@pytest.mark.parametrize("count", [0, 3, 30])
def test_many_pieces_of_bytes_are_kept_in_order(place: Place, count: int) -> None:
    """Bytes stored together come back each under its own digest; those that were torn are whole again."""
    many = [b"%d" % (i // 2) for i in range(count)]
    for digest in (first := place.blobs.put_all(many))[:1]:
        place.file(digest).write_bytes(b"")
    assert place.blobs.put_all(many) == first
    assert [place.blobs.get(digest) for digest in first] == many


def test_which_of_many_are_not_here(place: Place) -> None:
    """Asked for many at once, the store names exactly those that it does not have; in an empty one that is all."""
    assert place.blobs.lacking([DIGEST]) == {DIGEST}
    here = [place.blobs.put(b"%d" % i) for i in range(20)]
    near = here[0][:9] + DIGEST[9:]  # In the folder of one that is here.
    assert place.blobs.lacking([*here, DIGEST, near]) == {DIGEST, near}
    assert place.blobs.lacking([]) == set()


def test_damage_is_named(place: Place, tmp_path: pathlib.Path) -> None:
    """A flipped bit or a lost end is IntegrityError with the digest and the place; no file appears."""
    for content in (b"hellp", b"hell", b""):
        digest = place.blobs.put(b"hello")
        place.file(digest).write_bytes(content)
        with pytest.raises(IntegrityError, match=digest) as caught:
            place.blobs.get(digest)
        assert f"sha256/{digest[7:9]}/{digest[7:]}" in str(caught.value)
        with pytest.raises(IntegrityError, match=digest):
            place.blobs.fetch(digest, tmp_path / "out")
        assert list(tmp_path.glob("*out*")) == []
        place.file(digest).unlink()


def test_storing_again_heals_a_torn_blob(place: Place) -> None:
    """A blob cut short is whole again after the same bytes are put."""
    digest = place.blobs.put(b"hello")
    place.file(digest).write_bytes(b"hel")
    assert place.blobs.put(b"hello") == digest
    assert place.blobs.get(digest) == b"hello"


def test_what_is_absent_is_named(place: Place, tmp_path: pathlib.Path) -> None:
    """A digest that was never put is NotFoundError; text that is no digest is refused."""
    assert not place.blobs.has(DIGEST)
    with pytest.raises(NotFoundError, match=DIGEST):
        place.blobs.get(DIGEST)
    with pytest.raises(NotFoundError, match=DIGEST):
        place.blobs.fetch(DIGEST, tmp_path / "out")
    for text in ("", "sha256:../../etc/passwd", "md5:00", DIGEST.upper(), f"{DIGEST}0"):
        with pytest.raises(SpecError, match="not a digest"):
            place.blobs.get(text)


def test_local_blobs_leave_nothing_aside(tmp_path: pathlib.Path) -> None:
    """After a put, and after a put that fails, only whole blobs are on disk."""
    local = LocalBlobs(tmp_path)
    digest = local.put(b"hello")
    with pytest.raises(FileNotFoundError):
        local.put_file(tmp_path / "nothing")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [
        tmp_path / "sha256" / digest[7:9] / digest[7:]
    ]


@pytest.mark.parametrize(
    ("count", "alone", "together"), [(blobs._FEW, blobs._FEW, 0), (blobs._FEW + 1, 0, 1)]
)
def test_a_few_are_flushed_one_by_one_and_many_together(
    count: int, alone: int, together: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and bytes alike: each file and its folder on its own, or the whole file system once."""
    folders, whole = [], []
    monkeypatch.setattr(blobs, "_flush_folder", folders.append)
    monkeypatch.setattr(blobs, "_flush_file_system", whole.append)
    paths = [tmp_path / str(i) for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(b"%d" % i)
    LocalBlobs(tmp_path / "files").put_files(paths)
    assert (len(folders), len(whole)) == (alone, together)
    LocalBlobs(tmp_path / "bytes").put_all([path.read_bytes() for path in paths])
    assert (len(folders), len(whole)) == (2 * alone, 2 * together)


def test_where_blobs_are(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment says where the blobs are; a folder and `file://` are local, `s3://` is not."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path))
    monkeypatch.delenv("TRADEWIND_BLOBS", raising=False)
    assert open_blobs().url == str(tmp_path / "blobs")
    monkeypatch.setenv("TRADEWIND_BLOBS", f"file://{tmp_path}/other")
    assert open_blobs().url == f"{tmp_path}/other"
    assert isinstance(open_blobs("s3://bucket/prefix"), ObjectBlobs)
    with pytest.raises(SpecError, match="nonsense://x"):
        open_blobs("nonsense://x")


def test_an_unreachable_server_is_named(
    monkeypatch: pytest.MonkeyPatch, s3_bucket: tuple[str, pathlib.Path]
) -> None:
    """Wrong credentials are a StoreError that names the blob store."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="s3://bucket-"):
        open_blobs(s3_bucket[0]).put(b"hello")
