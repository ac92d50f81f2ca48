"""Checkpoints in a real S3 server: parts sent once, damage named, failures tried again, all or nothing."""

import builtins
import pathlib
import random
import sys
from collections.abc import Iterator

import pytest
import stamina

from tests.services.flaky import Flaky, flaky
from tests.train import states
from tradewind.errors import IntegrityError, MissingExtraError, NotFoundError, SpecError, StoreError
from tradewind.train import checkpoint
from tradewind.train.checkpoint.remote import RemoteCheckpoints

Bucket = tuple[str, pathlib.Path]
PART = 64


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Tries follow each other at once, four of them."""
    with stamina.set_testing(True, attempts=4):
        yield


@pytest.fixture
def remote(s3_bucket: Bucket) -> RemoteCheckpoints:
    return RemoteCheckpoints(s3_bucket[0], part_bytes=PART)


@pytest.fixture
def proxy(s3_bucket: Bucket, s3_server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    """A proxy before the S3 server; clients made from now on go through it."""
    with flaky(s3_server[0]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def objects(bucket: Bucket, kind: str) -> list[pathlib.Path]:
    """The stored objects of a kind, as files of the server."""
    return [path for path in (bucket[1] / "blobs" / kind).rglob("*") if path.is_file()]


def test_a_checkpoint_comes_back_byte_for_byte(remote: RemoteCheckpoints, tmp_path: pathlib.Path) -> None:
    """What is fetched on another host has the same files and can be loaded and built upon."""
    for step in (3, 5):
        remote.upload(states.save(tmp_path / "here", step))
    assert remote.steps() == [3, 5]
    folder = remote.fetch(5, tmp_path / "there")
    assert contents(folder) == contents(tmp_path / "here" / folder.name)
    assert checkpoint.load(folder).step == 5
    assert checkpoint.latest(tmp_path / "there") == folder
    assert [path.name for path in (tmp_path / "there").iterdir()] == [folder.name]


def test_what_is_there_is_not_sent_again(remote: RemoteCheckpoints, tmp_path: pathlib.Path) -> None:
    """The same checkpoint sends nothing the second time, and another one only the parts that differ."""
    first = remote.upload(folder := states.save(tmp_path, 1))
    size = sum(len(data) for data in contents(folder).values())
    assert first.kept_bytes + first.sent_bytes == size
    assert remote.upload(folder).sent_bytes == 0
    other = remote.upload(states.save(tmp_path, 2))
    assert 0 < other.sent_bytes < size * 0.8
    assert remote.upload(folder, resend=True).sent_bytes == size


def test_the_manifest_comes_last(proxy: Flaky, s3_bucket: Bucket, tmp_path: pathlib.Path) -> None:
    """When any part cannot be sent the checkpoint is not there, and the next upload completes it."""
    remote = RemoteCheckpoints(s3_bucket[0], part_bytes=PART)
    folder = states.save(tmp_path / "here", 1)
    arrives: list[str] = []

    def drop_parts_but_one(method: str, path: str) -> str:
        if method != "PUT" or "/parts/" not in path:
            return "pass"
        arrives.append(path)
        return "pass" if path == arrives[0] else "drop"

    proxy.choose = drop_parts_but_one
    with pytest.raises(StoreError, match="blobs/parts"):
        remote.upload(folder)
    proxy.choose = lambda method, path: "pass"
    assert remote.steps() == []
    assert objects(s3_bucket, "parts")
    with pytest.raises(NotFoundError, match=r"no checkpoint of step 1; it has \[\]"):
        remote.fetch(1, tmp_path / "there")
    assert remote.upload(folder).kept_bytes > 0
    assert contents(remote.fetch(1, tmp_path / "there")) == contents(folder)


@pytest.mark.parametrize("fate", ["refuse", "drop", "cut"])
def test_passing_failures_are_tried_again(
    proxy: Flaky, s3_bucket: Bucket, tmp_path: pathlib.Path, fate: str
) -> None:
    """With every third request refused, dropped or cut short, uploads and fetches are right all the same."""
    remote = RemoteCheckpoints(s3_bucket[0], part_bytes=PART, parallel=1)
    proxy.choose = lambda method, path: fate if proxy.seen.total() % 6 == 0 else "pass"
    folder = states.save(tmp_path / "here", 1)
    remote.upload(folder)
    assert contents(remote.fetch(1, tmp_path / "there")) == contents(folder)
    assert proxy.seen[fate] > 5


def test_a_store_that_stays_away_is_named(proxy: Flaky, s3_bucket: Bucket, tmp_path: pathlib.Path) -> None:
    """When no try succeeds the error names the object and says what to look at, after the agreed tries."""
    remote = RemoteCheckpoints(s3_bucket[0], parallel=1)
    proxy.choose = lambda method, path: "refuse"
    with pytest.raises(StoreError, match=r"blobs/checkpoints/.*check the store"):
        remote.steps()
    assert proxy.seen["GET"] == 4


def test_refusals_are_not_tried_again(
    proxy: Flaky, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong credentials fail at the first try."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="credentials"):
        RemoteCheckpoints(s3_bucket[0]).steps()
    assert proxy.seen["GET"] == 1


def test_a_fetch_goes_on_where_it_was_cut_off(
    proxy: Flaky, s3_bucket: Bucket, tmp_path: pathlib.Path
) -> None:
    """Parts that an earlier fetch brought are not asked for again, and strays in its folder are removed."""
    remote = RemoteCheckpoints(s3_bucket[0], part_bytes=PART, parallel=1)
    folder = states.save(tmp_path / "here", 1)
    remote.upload(folder)
    before = proxy.seen["GET"]
    proxy.choose = lambda method, path: "refuse" if proxy.seen["GET"] > before + 12 else "pass"
    with pytest.raises(StoreError):
        remote.fetch(1, tmp_path / "there")
    assert checkpoint.steps(tmp_path / "there") == []
    (aside,) = (tmp_path / "there").iterdir()
    (aside / "stray").touch()
    proxy.choose = lambda method, path: "pass"
    before = proxy.seen["GET"]
    assert contents(remote.fetch(1, tmp_path / "there")) == contents(folder)
    num_parts = sum(-(-len(data) // PART) for data in contents(folder).values())
    assert proxy.seen["GET"] - before < num_parts - 8


def test_damage_in_the_store_is_named(
    remote: RemoteCheckpoints, s3_bucket: Bucket, tmp_path: pathlib.Path
) -> None:
    """One flipped bit in any object is an IntegrityError that names it, no folder appears, resending repairs."""
    folder = states.save(tmp_path / "here", 1)
    remote.upload(folder)
    draw = random.Random(0)
    for path in [*draw.sample(objects(s3_bucket, "parts"), 5), *objects(s3_bucket, "checkpoints")]:
        raw = bytearray(path.read_bytes())
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(raw)
        with pytest.raises(IntegrityError, match=f"blobs/.*{path.name}"):
            remote.fetch(1, tmp_path / path.name)
        assert checkpoint.steps(tmp_path / path.name) == []
        remote.upload(folder, resend=True)
    assert contents(remote.fetch(1, tmp_path / "there")) == contents(folder)


def test_a_damaged_checkpoint_is_not_uploaded(remote: RemoteCheckpoints, tmp_path: pathlib.Path) -> None:
    """A checkpoint that is not whole here is refused before anything is sent."""
    folder = states.save(tmp_path, 1)
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=path.name):
        remote.upload(folder)
    assert remote.steps() == []


def test_a_fetch_leaves_whole_ones_and_replaces_damaged_ones(
    remote: RemoteCheckpoints, proxy: Flaky, tmp_path: pathlib.Path
) -> None:
    """A checkpoint that is here and whole is not fetched; a damaged one is replaced by the stored one."""
    folder = states.save(tmp_path, 1)
    whole = contents(folder)
    remote.upload(folder)
    stamp = folder.stat().st_ino
    assert remote.fetch(1, tmp_path) == folder
    assert folder.stat().st_ino == stamp
    path = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    path.write_bytes(b"")
    assert contents(remote.fetch(1, tmp_path)) == whole
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_pruning_keeps_what_kept_steps_need(
    remote: RemoteCheckpoints, s3_bucket: Bucket, tmp_path: pathlib.Path
) -> None:
    """Dropped steps are gone, parts only they needed are deleted, and kept ones can still be fetched."""
    folders = {step: states.save(tmp_path / "here", step) for step in (1, 2, 3)}
    for folder in folders.values():
        remote.upload(folder)
    before = len(objects(s3_bucket, "parts"))
    remote.prune(keep=[2, 9])
    assert remote.steps() == [2]
    needed = {
        data[at : at + PART] for data in contents(folders[2]).values() for at in range(0, len(data), PART)
    }
    assert len(objects(s3_bucket, "parts")) == len(needed) < before
    assert contents(remote.fetch(2, tmp_path / "there")) == contents(folders[2])


def test_a_manifest_cannot_write_elsewhere(
    remote: RemoteCheckpoints, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest with a name that leaves its folder is refused, well sealed or not."""
    from tradewind.train.checkpoint import remote as module

    remote.upload(states.save(tmp_path / "here", 1))
    seal = module.seal
    for name in ("../../escaped", "/tmp/escaped"):
        monkeypatch.setattr(module, "seal", lambda m, name=name: seal(m | {"files": m["files"] | {name: 1}}))
        remote.upload(tmp_path / "here" / "step-000000000001")
        monkeypatch.setattr(module, "seal", seal)
        with pytest.raises(IntegrityError, match="step-000000000001"):
            remote.fetch(1, tmp_path / "there")
        assert not (tmp_path / "there").exists()


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where obstore is not installed the error says what to install."""
    real = builtins.__import__

    def absent(name: str, *args: object) -> object:
        if name.startswith("obstore"):
            raise ImportError(name)
        return real(name, *args)  # type: ignore[arg-type]

    for name in [name for name in sys.modules if name.startswith("obstore")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'tradewind\[s3\]'"):
        RemoteCheckpoints("s3://bucket")


def test_a_url_that_is_none_is_refused() -> None:
    """What is no object store's URL is refused at once, with one that is."""
    with pytest.raises(SpecError, match="s3://bucket/prefix"):
        RemoteCheckpoints("nowhere://x")
