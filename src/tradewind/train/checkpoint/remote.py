"""Committed checkpoints in an object store: parts named by their sha256, the manifest last.

A part that is there already is not sent again, so a file, or a part of one, that did not change
between two checkpoints costs one question. The manifest of a checkpoint appears, in one request, once
all its parts are there; a fetch checks every part, then the whole checkpoint, before it gets its name.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import stamina

from tradewind.errors import IntegrityError, MissingExtraError, NotFoundError, SpecError, StoreError
from tradewind.train import checkpoint
from tradewind.train.checkpoint.sealed import seal, unseal

FORMAT = "tradewind-remote/1"
_FETCHING = ".fetching-"
_MANIFESTS, _PARTS, _SUFFIX = "checkpoints/", "parts/", ".json"
_PASSING = (408, 429)
"""Client errors by their number that are the store's momentary state: a timeout, too many requests."""
Got = TypeVar("Got")


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What an upload cost: bytes sent, and bytes that the store had already."""

    step: int
    sent_bytes: int
    kept_bytes: int


@dataclass(frozen=True)
class _Part:
    """A piece of a file of the checkpoint."""

    name: str
    offset: int
    size: int
    sha256: str

    @property
    def key(self) -> str:
        return f"{_PARTS}{self.sha256[:2]}/{self.sha256}"


class RemoteCheckpoints:
    """The checkpoints of one run under a URL such as `s3://bucket/runs/7`; needs `tradewind[s3]`.

    Credentials and endpoint come from the store's usual environment (`AWS_ACCESS_KEY_ID`,
    `AWS_ENDPOINT_URL`, ...). A request that fails for a reason that may pass is tried again, up to
    `attempts` times in `timeout_s` seconds. Holds `parallel` parts of `part_bytes` in memory.
    """

    def __init__(
        self,
        url: str,
        *,
        part_bytes: int = 32 << 20,
        parallel: int = 8,
        attempts: int = 8,
        timeout_s: float = 120.0,
    ) -> None:
        self.url = url.rstrip("/")
        self._objects = _Objects(self.url, attempts, timeout_s)
        self._part_bytes, self._parallel = part_bytes, parallel

    def upload(self, folder: Path, *, resend: bool = False) -> Uploaded:
        """Verify a committed checkpoint and make it fetchable; other hosts see all of it or nothing.

        `resend` sends every part, to repair a store whose parts are damaged. Raises an IntegrityError
        that names the file, or a StoreError.
        """
        step = checkpoint.verify(folder).step
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        todo = [(path, offset) for path in files for offset in self._offsets(path)]
        with ThreadPoolExecutor(self._parallel) as pool:
            sent = list(pool.map(lambda place: self._send(folder, place[0], place[1], resend), todo))
        manifest = {
            "format": FORMAT,
            "checkpoint": folder.name,
            "step": step,
            "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
            "parts": [[part.name, part.offset, part.size, part.sha256] for part, _ in sent],
        }
        self._objects.put(_manifest_key(folder.name), seal(manifest))
        return Uploaded(
            step=step,
            sent_bytes=sum(part.size for part, was_sent in sent if was_sent),
            kept_bytes=sum(part.size for part, was_sent in sent if not was_sent),
        )

    def steps(self) -> list[int]:
        """Steps that can be fetched, oldest first."""
        return sorted(self._names())

    def fetch(self, step: int, root: Path) -> Path:
        """Bring a checkpoint under `root`, as if it had been saved there, and return its folder.

        One that is there and whole is left as it is; parts of a fetch that was cut off are not
        fetched again. Raises NotFoundError, an IntegrityError that names the object, or a StoreError.
        """
        names = self._names()
        if step not in names:
            raise NotFoundError(f"{self.url} has no checkpoint of step {step}; it has {sorted(names)}")
        target = root / names[step]
        if _is_whole(target):
            return target
        manifest = self._read(names[step])
        aside = root / f"{_FETCHING}{names[step]}"
        _make_room(aside, manifest["files"])
        with ThreadPoolExecutor(self._parallel) as pool:
            list(pool.map(lambda part: self._receive(aside, part), _parts(manifest)))
        _flush(aside, manifest["files"])
        checkpoint.verify(aside)
        _put_in_place(aside, target)
        return target

    def prune(self, keep: Iterable[int]) -> None:
        """Drop the other steps, and the parts that no kept one needs; only while nobody uploads."""
        names = self._names()
        kept = [self._read(names[step]) for step in set(keep) & names.keys()]
        needed = {part.key for manifest in kept for part in _parts(manifest)}
        self._objects.delete([_manifest_key(names[step]) for step in names.keys() - set(keep)])
        self._objects.delete([key for key in self._objects.keys(_PARTS) if key not in needed])

    def _names(self) -> dict[int, str]:
        """Folder names by step."""
        keys = self._objects.keys(_MANIFESTS)
        names = [key.removeprefix(_MANIFESTS).removesuffix(_SUFFIX) for key in keys]
        return {int(name.rpartition("-")[2]): name for name in names if name.rpartition("-")[2].isdecimal()}

    def _offsets(self, path: Path) -> Iterable[int]:
        return range(0, path.stat().st_size, self._part_bytes)

    def _send(self, folder: Path, path: Path, offset: int, resend: bool) -> tuple[_Part, bool]:
        with path.open("rb") as file:
            data = os.pread(file.fileno(), self._part_bytes, offset)
        name = path.relative_to(folder).as_posix()
        part = _Part(name, offset, len(data), hashlib.sha256(data).hexdigest())
        missing = resend or self._objects.size(part.key) != part.size
        if missing:
            self._objects.put(part.key, data)
        return part, missing

    def _receive(self, folder: Path, part: _Part) -> None:
        with (folder / part.name).open("r+b") as file:
            there = os.pread(file.fileno(), part.size, part.offset)
            if hashlib.sha256(there).hexdigest() == part.sha256:
                return
            data = self._objects.get(part.key)
            if hashlib.sha256(data).hexdigest() != part.sha256:
                raise IntegrityError(
                    f"{self.url}/{part.key} is damaged: its sha256 is not its name; fetch another step, or "
                    "upload this one again with resend=True"
                )
            file.seek(part.offset)
            file.write(data)

    def _read(self, name: str) -> dict[str, Any]:
        key = _manifest_key(name)
        return unseal(self._objects.get(key), f"{self.url}/{key}", FORMAT, _all_stay_below)


class _Objects:
    """An object store whose passing failures are tried again."""

    def __init__(self, url: str, attempts: int, timeout_s: float) -> None:
        try:
            import obstore.exceptions
            import obstore.store
        except ImportError:
            raise MissingExtraError(
                "checkpoints in an object store need obstore: pip install 'tradewind[s3]'"
            ) from None
        self.url, self._api, self._errors = url, obstore, obstore.exceptions
        self._attempts, self._timeout_s = attempts, timeout_s
        # S3 compares what arrives with a digest of what was sent; the one place that tries again is here.
        config: Any = {"checksum_algorithm": "SHA256"} if url.startswith("s3:") else None
        try:
            self._store = obstore.store.from_url(url, config=config, retry_config={"max_retries": 0})
        except (ValueError, obstore.exceptions.BaseError) as error:
            raise SpecError(f"{url}: not an object store: {error}; write s3://bucket/prefix") from None

    def put(self, key: str, data: bytes) -> None:
        self._call(key, lambda: self._api.put(self._store, key, data, use_multipart=False))

    def get(self, key: str) -> bytes:
        return self._call(key, lambda: bytes(self._api.get(self._store, key).bytes()))

    def size(self, key: str) -> int | None:
        """The object's size, None when there is none."""
        try:
            return int(self._call(key, lambda: self._api.head(self._store, key))["size"])
        except NotFoundError:
            return None

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin so."""
        return self._call(prefix, lambda: list(self._list(prefix)))

    def delete(self, keys: list[str]) -> None:
        for start in range(0, len(keys), 1000):
            self._delete(keys[start : start + 1000])

    def _delete(self, keys: list[str]) -> None:
        self._call(keys[0], lambda: self._api.delete(self._store, keys))

    def _list(self, prefix: str) -> Iterator[str]:
        for batch in self._api.list(self._store, prefix):
            yield from (str(entry["path"]) for entry in batch)

    def _call(self, key: str, request: Callable[[], Got]) -> Got:
        try:
            for attempt in stamina.retry_context(
                self._may_pass, attempts=self._attempts, timeout=self._timeout_s
            ):
                with attempt:
                    return request()
        except (FileNotFoundError, self._errors.NotFoundError):
            raise NotFoundError(f"{self.url}/{key} does not exist") from None
        except self._errors.BaseError as error:
            raise StoreError(
                f"{self.url}/{key}: {_brief(error)}; check the store, its address and credentials"
            ) from error
        raise AssertionError("a retry ends with a result or an error")

    def _may_pass(self, error: Exception) -> bool:
        """Whether the same request may succeed later; what the store refused on purpose will not."""
        if not isinstance(error, self._errors.GenericError | self._errors.JoinError | TimeoutError):
            return False
        status = re.search(r"status code: (\d+)", str(error))
        return status is None or int(status[1]) >= 500 or int(status[1]) in _PASSING


def _brief(error: Exception) -> str:
    # obstore appends pages of the request's internals.
    return str(error).partition("\n\nDebug source")[0].strip()[:500]


def _manifest_key(name: str) -> str:
    return f"{_MANIFESTS}{name}{_SUFFIX}"


def _all_stay_below(manifest: dict[str, Any]) -> bool:
    return all(_stays_below(name) for name in manifest["files"])


def _stays_below(name: str) -> bool:
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _parts(manifest: dict[str, Any]) -> list[_Part]:
    return [_Part(*fields) for fields in manifest["parts"]]


def _is_whole(folder: Path) -> bool:
    try:
        checkpoint.verify(folder)
    except IntegrityError:
        return False
    return True


def _make_room(folder: Path, files: dict[str, int]) -> None:
    """Files of the right length, with what an earlier fetch left in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stray in [path for path in folder.rglob("*") if path.is_file()]:
        if stray.relative_to(folder).as_posix() not in files:
            stray.unlink()
    for name, size in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(size)


def _flush(folder: Path, files: dict[str, int]) -> None:
    """Make the files and their names durable."""
    below = {(folder / name).parent for name in files} | {folder}
    for path in [*(folder / name for name in files), *below]:
        _fsync(path)


def _put_in_place(folder: Path, target: Path) -> None:
    """Give a whole checkpoint its name; a damaged one that had it goes."""
    if target.exists():
        dropped = folder.with_name(f"{folder.name}.dropped")
        target.rename(dropped)
        shutil.rmtree(dropped)
    folder.rename(target)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
