"""An index on disk: whole or not there, every byte checked when it is read, nothing in it executed.

A folder holds generations, and a file `CURRENT` that names the one to load. A generation is written aside and flushed;
then CURRENT is replaced. A crash at any line leaves the old CURRENT or the new one, each with its whole generation. One
writer a folder.
"""

import hashlib
import io
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from tradewind.errors import IntegrityError, NotFoundError
from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.auto import AutoIndex
from tradewind.retrieve.columns import Boolean, Category, Column, Multi, Number
from tradewind.retrieve.inverted import Inverted
from tradewind.retrieve.plan import Profile
from tradewind.retrieve.segments import Base, Chunk, Dead, State, merged

_CURRENT = "CURRENT"
_MANIFEST = "manifest.json"
_GENERATION = re.compile(r"generation-[0-9a-f]{16}")
_VERSION = 2


class _Column(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    names: tuple[str, ...] = ()


class _Versioned(msgspec.Struct, frozen=True, kw_only=True):
    version: int


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    num_items: int
    num_changed: int
    removed: int
    target: float
    has_attributes: bool
    columns: dict[str, _Column]
    fresh_columns: dict[str, _Column] | None
    profile: Profile | None
    files: dict[str, str]


def save(index: AutoIndex, folder: str | os.PathLike[str]) -> None:
    """Keep what the index holds now; searches and changes go on. The generation before is kept, older ones go."""
    root = pathlib.Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    state = index.state
    name = f"generation-{secrets.token_hex(8)}"
    aside = root / name
    aside.mkdir()
    arrays, manifest = _parts(state, index.target)
    digests = {file: _write_array(aside / file, array) for file, array in arrays.items()}
    _write(aside / _MANIFEST, msgspec.json.encode(msgspec.structs.replace(manifest, files=digests)))
    digest = hashlib.sha256((aside / _MANIFEST).read_bytes()).hexdigest()
    _sync(aside)
    before = _named(root)[0] if (root / _CURRENT).exists() else None
    _write(root / f"{_CURRENT}.new", f"{name} {digest}\n".encode())
    os.replace(root / f"{_CURRENT}.new", root / _CURRENT)
    _sync(root)
    for other in root.iterdir():
        if _GENERATION.fullmatch(other.name) and other.name not in (name, before):
            shutil.rmtree(other)


def load(folder: str | os.PathLike[str], *, audit_share: float = 0.01) -> AutoIndex:
    """The index that `save` kept last.

    Raises NotFoundError where none was, IntegrityError naming the file where bytes are not those that were written.
    """
    root = pathlib.Path(folder)
    name, digest = _named(root)
    data = _read(root / name / _MANIFEST, digest)
    if (version := msgspec.json.decode(data, type=_Versioned).version) != _VERSION:
        raise IntegrityError(
            f"{root / name}: written by another version of tradewind ({version}); build the index anew"
        )
    manifest = msgspec.json.decode(data, type=_Manifest)
    arrays = {file: _array(_read(root / name / file, found)) for file, found in manifest.files.items()}
    return AutoIndex.resumed(_state(manifest, arrays), target=manifest.target, audit_share=audit_share)


def _named(root: pathlib.Path) -> tuple[str, str]:
    try:
        parts = (root / _CURRENT).read_text().split()
    except FileNotFoundError:
        raise NotFoundError(f"{root}: no index was kept here") from None
    if len(parts) != 2 or not _GENERATION.fullmatch(parts[0]):
        raise IntegrityError(f"{root / _CURRENT}: names no generation; the file is damaged")
    return parts[0], parts[1]


def _parts(state: State, target: float) -> tuple[dict[str, np.ndarray], _Manifest]:
    """The arrays by file name, and what describes them."""
    base = state.base
    arrays: dict[str, np.ndarray] = {"vectors.npy": base.vectors, "dead.npy": state.dead.flags}
    if base.inverted is not None:
        arrays |= {
            "centroids.npy": base.inverted.centroids,
            "positions.npy": base.inverted.positions,
            "assigned.npy": base.inverted.assigned,
        }
    columns = _split(base.attributes, "base", arrays)
    alive = [chunk for chunk in state.chunks if chunk.num_alive]
    fresh = merged(alive) if alive else None
    if fresh is not None:
        arrays |= {"fresh-positions.npy": fresh.positions, "fresh-vectors.npy": fresh.vectors}
    manifest = _Manifest(
        version=_VERSION,
        num_items=state.num_items,
        num_changed=base.num_changed,
        removed=state.dead.removed,
        target=target,
        has_attributes=base.attributes is not None,
        columns=columns,
        fresh_columns=None if fresh is None else _split(fresh.attributes, "fresh", arrays),
        profile=base.profile,
        files={},
    )
    return arrays, manifest


def _split(attributes: Attributes | None, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, _Column]:
    """Put the arrays of columns among `arrays`, named by number: a field's name is no file's."""
    columns = {}
    for i, (name, column) in enumerate(attributes.columns.items() if attributes is not None else ()):
        names = tuple(column.names) if isinstance(column, Category | Multi) else ()
        columns[name] = _Column(kind=column.kind, names=names)
        main = column.codes if isinstance(column, Category | Multi) else _values(column)
        arrays[f"{prefix}-{i}.npy"] = main
        if isinstance(column, Multi):
            arrays[f"{prefix}-{i}-offsets.npy"] = column.offsets
    return columns


def _values(column: Column) -> np.ndarray:
    assert isinstance(column, Boolean | Number)
    return column.values


def _state(manifest: _Manifest, arrays: Mapping[str, np.ndarray]) -> State:
    vectors, flags = arrays["vectors.npy"], arrays["dead.npy"]
    inverted = None
    if "centroids.npy" in arrays:
        positions, assigned = arrays["positions.npy"], arrays["assigned.npy"]
        inverted = Inverted(arrays["centroids.npy"], vectors[positions], positions, assigned)
    attributes = _joined(manifest.columns, "base", arrays) if manifest.has_attributes else None
    base = Base(vectors, attributes, inverted, manifest.profile, manifest.num_changed)
    chunks: tuple[Chunk, ...] = ()
    if manifest.fresh_columns is not None:
        places = arrays["fresh-positions.npy"]
        given = _joined(manifest.fresh_columns, "fresh", arrays) if manifest.has_attributes else None
        alive = np.ones(len(places), dtype=np.bool_)
        chunks = (Chunk(places, arrays["fresh-vectors.npy"], given, alive),)
    return State(base, Dead.of(flags, manifest.removed), chunks, manifest.num_items)


def _joined(columns: Mapping[str, _Column], prefix: str, arrays: Mapping[str, np.ndarray]) -> Attributes:
    made: dict[str, Any] = {}
    for i, (name, column) in enumerate(columns.items()):
        main, names = arrays[f"{prefix}-{i}.npy"], {text: code for code, text in enumerate(column.names)}
        if column.kind == "category":
            made[name] = Category(main, names)
        elif column.kind == "tags":
            made[name] = Multi(arrays[f"{prefix}-{i}-offsets.npy"], main, names)
        else:
            made[name] = Boolean(main) if column.kind == "flag" else Number(main)
    return Attributes(made)


def _write_array(path: pathlib.Path, array: np.ndarray) -> str:
    with open(path, "xb") as file:
        hashing = _Hashing(file)
        np.lib.format.write_array(hashing, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return hashing.sum.hexdigest()


class _Hashing:
    """A file to write to, and the sum of what was written."""

    def __init__(self, file: Any) -> None:
        self._file, self.sum = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        return int(self._file.write(data))


def _array(data: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _read(path: pathlib.Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(f"{path}: missing; the kept index is damaged, build it anew") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise IntegrityError(
            f"{path}: not the bytes that were written; the kept index is damaged, build it anew"
        )
    return data


def _write(path: pathlib.Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
