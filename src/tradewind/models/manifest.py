"""The manifest of a package: what is in the folder, and the digest of every byte of it."""

import hashlib
import os
import pathlib
import re
import stat
from typing import Any

import msgspec

from tradewind.errors import IntegrityError
from tradewind.names import MANIFEST

FORMAT = 1
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a package: digest of its bytes and how many there are."""

    sha256: str
    size: int


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output: Open Inference Protocol datatype, and shape with -1 for a dynamic dimension.

    `range` has `[smallest, largest or None]` per dimension; `symbols` names dynamic dimensions, so that equal
    names are equal sizes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    range: tuple[tuple[int, int | None], ...] = ()
    symbols: tuple[str | None, ...] = ()


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a program takes and gives, in order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a package that fits in JSON; `digest` covers all other fields."""

    format: int
    name: str
    task: str
    created_s: float
    programs: dict[str, Signature]
    tensors: tuple[str, ...]
    vocabularies: tuple[str, ...]
    metrics: dict[str, float]
    lineage: dict[str, Any]
    config: dict[str, Any]
    files: dict[str, File]
    digest: str = ""


def seal(manifest: Manifest) -> tuple[Manifest, bytes]:
    """The manifest with its digest, and the only bytes that may stand for it on disk."""
    unsigned = _encode(msgspec.structs.replace(manifest, digest=""))
    sealed = msgspec.structs.replace(manifest, digest="sha256:" + hashlib.sha256(unsigned).hexdigest())
    return sealed, _encode(sealed)


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n"


def digest_of(data: bytes | bytearray) -> File:
    return File(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def read(folder: pathlib.Path) -> tuple[Manifest, dict[str, bytearray]]:
    """The manifest and every file's bytes, read once and verified; what is returned is what was checked.

    Raises IntegrityError naming the file that is damaged, missing or not in the manifest.
    """
    manifest = _read_manifest(folder)
    _check_listing(folder, manifest)
    contents: dict[str, bytearray] = {}
    for path, file in manifest.files.items():
        contents[path] = _read_file(folder / path)
        if digest_of(contents[path]) != file:
            raise IntegrityError(
                f"{folder / path}: the bytes are not those that were published; publish again"
            )
    return manifest, contents


def _read_manifest(folder: pathlib.Path) -> Manifest:
    path = folder / MANIFEST
    data = _read_file(path)
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path}: not a package manifest: {error}") from error
    if manifest.format != FORMAT:
        raise IntegrityError(f"{path}: format {manifest.format}, this version reads {FORMAT}")
    if seal(manifest)[1] != data:
        raise IntegrityError(f"{path}: the bytes are not those that were published; publish again")
    for name in manifest.files:
        if not _PATH.fullmatch(name):
            raise IntegrityError(f"{path}: {name!r} is not a path inside the package")
    return manifest


def _check_listing(folder: pathlib.Path, manifest: Manifest) -> None:
    found = set()
    for root, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = pathlib.Path(root, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found.add(path.relative_to(folder).as_posix())
            elif not stat.S_ISDIR(mode):
                raise IntegrityError(f"{path}: a package holds plain files and folders only")
    for missing in sorted(manifest.files.keys() - found):
        raise IntegrityError(f"{folder / missing}: missing from the package")
    for extra in sorted(found - manifest.files.keys() - {MANIFEST}):
        raise IntegrityError(f"{folder / extra}: not in the package's manifest")


def _read_file(path: pathlib.Path) -> bytearray:
    """All bytes of a plain file; never follows a link, never waits on a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}") from error
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IntegrityError(f"{path}: a package holds plain files and folders only")
        data = bytearray(status.st_size)
        view, filled = memoryview(data), 0
        while filled < len(data) and (count := file.readinto(view[filled:])):
            filled += count
    view.release()
    del data[filled:]
    return data
