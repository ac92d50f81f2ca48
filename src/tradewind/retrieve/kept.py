"""What an index learnt of its table, kept on this machine: whoever builds the same again reads that.

Clustering a million vectors and measuring the result takes a minute and more, in every worker, its spare and its
replacement; what comes of it is a few megabytes of arrays. A file is its sha256 and arrays as safetensors: nothing in
it is executed, it is written aside and renamed, and one that is damaged is not used. The folder is its owner's alone.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import structlog
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tradewind.errors import IntegrityError
from tradewind.home import home, why_not_own
from tradewind.retrieve.base import Index, Learnt
from tradewind.retrieve.inverted import load_faiss
from tradewind.retrieve.registry import LEARN, build

MOST = 16
"""Files that are kept; those that were not read for longest go first."""
_FORMAT = 1
_HEAD = 65
"""Bytes of the sum, in hexadecimal, and a line's end."""
log = structlog.get_logger()


class Kept:
    """The files under `folder`; by default those of this user's home."""

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self.folder = home() / "indexes" if folder is None else folder

    def find(self, key: str) -> Learnt | None:
        """Return what was kept under a key, and note that it was of use; None where nothing was.

        Raises IntegrityError where the bytes are not those that were written.
        """
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if data[:_HEAD] != _sum(data[_HEAD:]):
            raise IntegrityError(f"{path}: the bytes are not those that were written")
        try:
            learnt: Learnt = load(data[_HEAD:])
        except SafetensorError as error:
            raise IntegrityError(f"{path}: {error}") from None
        os.utime(path)
        return learnt

    def put(self, key: str, learnt: Learnt) -> None:
        """Keep it, whole or not at all; what was kept under the key before is replaced, and what is too much goes."""
        data = save(dict(learnt))
        aside = self.folder / f".{key}.{secrets.token_hex(8)}"
        try:
            with open(aside, "xb") as file:
                file.write(_sum(data))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path(key))
        finally:
            aside.unlink(missing_ok=True)
        files = sorted(self.folder.glob("*.index"), key=lambda path: path.stat().st_mtime_ns)
        for path in files[:-MOST]:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def building(self, key: str) -> Iterator[None]:
        """Hold a key: whoever else builds it waits, and then finds it kept. Let go of when this process ends.

        Raises PermissionError where the folder is not this user's own.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (why := why_not_own(self.folder)) is not None:
            raise PermissionError(f"{why}; indexes are not read from it")
        with open(self.folder / f"lock-{key[0]}", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, key: str) -> pathlib.Path:
        return self.folder / f"{key}.index"


def build_kept(
    kept: Kept,
    made_from: Mapping[str, Any],
    kind: str,
    embedding: "np.ndarray",
    *,
    skip: int = 0,
    **options: Any,
) -> Index:
    """Return what `build` does, from what was learnt of the same table before where that is kept; else keep it.

    `made_from` says which table it is, and what machine measures it. A folder that cannot be written, or a file that
    is damaged or does not fit, is reported, and the index is built.
    """
    if kind not in LEARN:
        return build(kind, embedding, skip=skip, **options)
    make = functools.partial(build, kind, embedding, skip=skip, **options)
    key = _key(made_from, kind, embedding, skip)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(kept.building(key))
        except OSError as error:
            log.warning("index not kept", error=str(error))
            return make()
        try:
            learnt = kept.find(key)
            if learnt is not None:
                index = make(learnt=learnt)
                log.info("kept index read", kind=kind, key=key)
                return index
        except (OSError, ValueError, IntegrityError) as error:
            log.warning("kept index not used", error=str(error))
        index = make()
        try:
            if found := index.learnt:
                kept.put(key, found)
        except OSError as error:
            log.warning("index not kept", error=str(error))
        return index


def _key(made_from: Mapping[str, Any], kind: str, embedding: "np.ndarray", skip: int) -> str:
    whole = {
        "format": _FORMAT,
        "faiss": load_faiss().__version__,
        "from": made_from,
        "kind": kind,
        "shape": list(embedding.shape),
        "skip": skip,
    }
    return hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()


def _sum(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode() + b"\n"
