"""Bytes by their digest, `sha256:<hex>`, on local disk or in an object store."""

import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Protocol, TypeVar

from tradewind import names
from tradewind.errors import IntegrityError, MissingExtraError, NotFoundError, SpecError, StoreError
from tradewind.store.open import home

_CHUNK = 1 << 20
_PARALLEL = 16
_FEW = 8
"""So many files are flushed one by one; flushing the file system waits for what everybody else has written too."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

T = TypeVar("T")
R = TypeVar("R")


class Blobs(Protocol):
    """Immutable bytes; what was put under a digest is what comes back, or IntegrityError."""

    url: str

    def put(self, data: bytes) -> str:
        """Keep bytes and return their digest; bytes that are here already cost a look."""

    def put_file(self, path: str | os.PathLike[str]) -> str:
        """Keep a file's bytes, read in pieces, and return their digest."""

    def put_files(self, paths: Sequence[str | os.PathLike[str]]) -> list[str]:
        """Keep many files and return their digests in order; durable together, once this returns."""

    def put_all(self, many: Sequence[bytes]) -> list[str]:
        """Keep many pieces of bytes and return their digests in order; durable together, once this returns."""

    def get(self, digest: str) -> bytes:
        """The bytes, verified; raises NotFoundError, or IntegrityError naming the digest and where it lies."""

    def fetch(self, digest: str, path: str | os.PathLike[str]) -> None:
        """Write the bytes to `path`, verified before the file appears there; raises as `get` does."""

    def has(self, digest: str) -> bool:
        """Whether the blob is here; says nothing about damage."""

    def lacking(self, digests: Collection[str]) -> set[str]:
        """Those of many blobs that are not here; cheaper than asking for each."""


def open_blobs(url: str | None = None) -> Blobs:
    """The blob store at `url`: a folder, `file://`, or an object store such as `s3://bucket/prefix`.

    Without one: `$TRADEWIND_BLOBS`, else `$TRADEWIND_HOME/blobs`. An object store reads its credentials
    and endpoint from its usual environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).
    """
    url = url or os.environ.get(names.ENV_BLOBS) or str(home() / "blobs")
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalBlobs(url)
    return LocalBlobs(rest) if scheme == "file" else ObjectBlobs(url)


class LocalBlobs:
    """Blobs as files: written aside, flushed to disk, then renamed into place."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = pathlib.Path(root).expanduser().absolute()
        self.url = str(self.root)

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        if not self._is_whole(digest):
            self._keep([data])
        return digest

    def put_file(self, path: str | os.PathLike[str]) -> str:
        return self._keep(_pieces_of(path))

    def put_files(self, paths: Sequence[str | os.PathLike[str]]) -> list[str]:
        return self._keep_all([_pieces_of(path) for path in paths])

    def put_all(self, many: Sequence[bytes]) -> list[str]:
        digests = [digest_of(data) for data in many]
        self._keep_all(
            [[data] for data, digest in zip(many, digests, strict=True) if not self._is_whole(digest)]
        )
        return digests

    def get(self, digest: str) -> bytes:
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise _absent(digest, self.url) from None
        if digest_of(data) != digest:
            raise _damaged(digest, str(path))
        return data

    def fetch(self, digest: str, path: str | os.PathLike[str]) -> None:
        source = self._path(digest)
        try:
            file = source.open("rb")
        except FileNotFoundError:
            raise _absent(digest, self.url) from None
        with file:
            _write_verified(_pieces(file), digest, pathlib.Path(path), str(source))

    def has(self, digest: str) -> bool:
        return os.path.exists(f"{self.url}/{_key(digest)}")

    def lacking(self, digests: Collection[str]) -> set[str]:
        folders: dict[str, list[str]] = {}
        for digest in digests:
            folders.setdefault(digest[7:9], []).append(digest)
        lost: set[str] = set()
        for wanted in folders.values():
            here = _names_in(os.path.dirname(f"{self.url}/{_key(wanted[0])}"))
            lost.update(digest for digest in wanted if digest[7:] not in here)
        return lost

    def _path(self, digest: str) -> pathlib.Path:
        return self.root / _key(digest)

    def _is_whole(self, digest: str) -> bool:
        try:
            self.get(digest)
        except (NotFoundError, IntegrityError):
            return False
        return True

    def _keep_all(self, many: Sequence[Iterable[bytes]]) -> list[str]:
        few = len(many) <= _FEW
        digests = [self._keep(pieces, flush=few) for pieces in many]
        if not few:
            _flush_file_system(self.root)
        return digests

    def _keep(self, pieces: Iterable[bytes], flush: bool = True) -> str:
        self.root.mkdir(parents=True, exist_ok=True)
        aside = self.root / f".{os.urandom(8).hex()}.tmp"
        try:
            digest = _write(pieces, aside, flush)
            path = self._path(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        if flush:
            _flush_folder(path.parent)
        return digest


class ObjectBlobs:
    """Blobs as objects in S3, GCS or Azure, through obstore."""

    def __init__(self, url: str) -> None:
        try:
            import obstore.exceptions
            import obstore.store
        except ImportError:
            raise MissingExtraError(
                "blobs in an object store need obstore: pip install 'tradewind[s3]'"
            ) from None
        self.url = url
        self._errors = obstore.exceptions
        self._api: Any = obstore
        try:
            self._store = obstore.store.from_url(url)
        except (ValueError, obstore.exceptions.BaseError) as error:
            raise SpecError(f"{url}: not a blob store: {error}; write s3://bucket/prefix") from None

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        if not self._holds(digest, len(data)):
            self._call(self._api.put, _key(digest), data)
        return digest

    def put_file(self, path: str | os.PathLike[str]) -> str:
        with open(path, "rb") as file:
            digest = _digest_of_pieces(_pieces(file))
            if not self._holds(digest, file.tell()):
                file.seek(0)
                self._call(self._api.put, _key(digest), _unchanged(file, digest, os.fspath(path)))
        return digest

    def put_files(self, paths: Sequence[str | os.PathLike[str]]) -> list[str]:
        return _in_parallel(self.put_file, paths)

    def put_all(self, many: Sequence[bytes]) -> list[str]:
        return _in_parallel(self.put, many)

    def get(self, digest: str) -> bytes:
        data = bytes(self._call(self._api.get, _key(digest)).bytes())
        if digest_of(data) != digest:
            raise _damaged(digest, f"{self.url}/{_key(digest)}")
        return data

    def fetch(self, digest: str, path: str | os.PathLike[str]) -> None:
        pieces = self._call(self._api.get, _key(digest)).stream(min_chunk_size=_CHUNK)
        _write_verified(map(bytes, pieces), digest, pathlib.Path(path), f"{self.url}/{_key(digest)}")

    def has(self, digest: str) -> bool:
        return self._size(digest) is not None

    def lacking(self, digests: Collection[str]) -> set[str]:
        found = zip(digests, _in_parallel(self.has, digests), strict=True)
        return {digest for digest, here in found if not here}

    def _holds(self, digest: str, size: int) -> bool:
        return self._size(digest) == size

    def _size(self, digest: str) -> int | None:
        try:
            return int(self._call(self._api.head, _key(digest))["size"])
        except NotFoundError:
            return None

    def _call(self, function: Any, key: str, *args: Any) -> Any:
        try:
            return function(self._store, key, *args)
        except FileNotFoundError:
            raise _absent(_digest_in(key), self.url) from None
        except self._errors.BaseError as error:
            raise StoreError(
                f"{self.url}: {str(error).strip()}; check its address and credentials"
            ) from error


def _in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    from concurrent.futures import ThreadPoolExecutor  # 15 ms, and blobs on disk do without it.

    with ThreadPoolExecutor(_PARALLEL) as pool:
        return list(pool.map(function, items))


def digest_of(data: bytes) -> str:
    """The digest under which these bytes are kept."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _digest_of_pieces(pieces: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return f"sha256:{sha.hexdigest()}"


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece


def _pieces_of(path: str | os.PathLike[str]) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from _pieces(file)


def _unchanged(file: BinaryIO, digest: str, path: str) -> Iterator[bytes]:
    """The file's pieces; raises before the last when they are no longer those of `digest`."""
    sha, held = hashlib.sha256(), b""
    for piece in _pieces(file):
        sha.update(piece)
        if held:
            yield held
        held = piece
    if f"sha256:{sha.hexdigest()}" != digest:
        raise IntegrityError(f"{path} changed while it was being stored; store it again when it is still")
    yield held


def _key(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise SpecError(f"{digest!r} is not a digest: it is 'sha256:' and 64 hexadecimal digits")
    value = digest.removeprefix("sha256:")
    return f"sha256/{value[:2]}/{value}"


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def _digest_in(key: str) -> str:
    return f"sha256:{key.rsplit('/', 1)[1]}"


def _write(pieces: Iterable[bytes], path: pathlib.Path, flush: bool = True) -> str:
    """Write and flush to disk; returns the digest of what was written."""
    sha = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            sha.update(piece)
            file.write(piece)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    return f"sha256:{sha.hexdigest()}"


def _write_verified(pieces: Iterable[bytes], digest: str, path: pathlib.Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        if _write(pieces, aside) != digest:
            raise _damaged(digest, source)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _flush_folder(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_file_system(path: pathlib.Path) -> None:
    """Flush everything written to the file system of `path`: one wait for any number of files."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not hasattr(libc, "syncfs"):
            os.sync()
        elif libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), f"{path}: its file system could not be flushed")
    finally:
        os.close(descriptor)


def _absent(digest: str, where: str) -> NotFoundError:
    return NotFoundError(f"blob {digest} is not in {where}")


def _damaged(digest: str, where: str) -> IntegrityError:
    return IntegrityError(
        f"blob {digest} is damaged: {where} holds other bytes; delete it and store it again"
    )
