"""Checkpoints of huge embedding tables that cost what changed: a base, then only the rows touched since.

The idea is Check-N-Run's (Eisenman et al., NSDI 2022): a step touches a small part of a table, so
most of a full checkpoint repeats the one before. Here every chunk is a file named by its sha256 and
never changed; a manifest lists the chunks that make a step, and is renamed into place when all of
them are on the disk. So a step is there whole or not at all, and steps share what they have alike.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tradewind.errors import IntegrityError, NotFoundError, TradewindError
from tradewind.train.checkpoint.sealed import encode, seal, unseal

FORMAT = "tradewind-deltas/1"
_PREFIX, _SUFFIX = "step-", ".json"
_CHUNKS = "chunks"

Tables = Mapping[str, torch.Tensor]
Touched = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A committed step. Keep `id` in a checkpoint's own state and give it to `load`: both or neither count."""

    step: int
    id: str
    full: bool
    written_bytes: int
    table_bytes: int


class DeltaStore:
    """Steps of one worker's tables in a folder of its own; one writer at a time.

    A table is a tensor whose first dimension is rows: weights, and optimizer state kept by row. When
    the deltas of a step add up to `compact_at` of the tables, the next one is full again.
    """

    def __init__(self, root: Path, *, chunk_bytes: int = 16 << 20, compact_at: float = 0.5) -> None:
        self.root = root
        self._chunks = _Chunks(root / _CHUNKS)
        self._chunk_bytes, self._compact_at = chunk_bytes, compact_at
        self._parent: dict[str, Any] | None = None

    def save(self, step: int, tables: Tables, touched: Touched | None = None) -> Saved:
        """Commit a step: the rows in `touched` since this object's last `save` or `resume`, else everything.

        A table that is missing from `touched`, or new, is stored whole; chunks of it that are in the
        store already are not written again. Durable when it returns; when it raises, nothing has
        changed, and the same rows are due again.
        """
        deltas = self._deltas(tables, touched or {})
        before = self._chunks.written_bytes
        entries = {name: self._entry(name, table, deltas.get(name)) for name, table in tables.items()}
        manifest = {"format": FORMAT, "step": step, "tables": entries}
        manifest["id"] = hashlib.sha256(encode(manifest)).hexdigest()
        written = self._commit(manifest) + self._chunks.written_bytes - before
        self._parent = manifest
        return _saved(manifest, full=not deltas, written_bytes=written)

    def load(
        self, step: int, *, id: str | None = None, into: Tables | None = None
    ) -> dict[str, torch.Tensor]:
        """The tables of a step, every chunk checked, in host memory or copied to those of `into`.

        Raises NotFoundError, or an IntegrityError that names the file; a save of this step that has
        another `id` is one.
        """
        return self._load(self._read(step, id), into)

    def resume(
        self, step: int, *, id: str | None = None, into: Tables | None = None
    ) -> dict[str, torch.Tensor]:
        """As `load`; and training goes on from here, so that the next `save` is a delta to this step."""
        manifest = self._read(step, id)
        tables = self._load(manifest, into)
        self._parent = manifest
        return tables

    def steps(self) -> list[int]:
        """Committed steps, oldest first, whole or not."""
        names = [path.name for path in self.root.glob(f"{_PREFIX}*{_SUFFIX}")]
        numbers = [name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for name in names]
        return sorted(int(number) for number in numbers if number.isdecimal())

    def verify(self, step: int) -> None:
        """Read and check every byte of a step; an IntegrityError names the file that is not as written."""
        for chunk in _chunks_of(self._read(step)):
            self._chunks.get(chunk)

    def latest(self, on_damaged: Callable[[int, IntegrityError], None] | None = None) -> int | None:
        """The newest whole step; damaged ones are passed over, after `on_damaged` was told."""
        for step in reversed(self.steps()):
            try:
                self.verify(step)
            except IntegrityError as error:
                if on_damaged is not None:
                    on_damaged(step, error)
                continue
            return step
        return None

    def compact(self, step: int) -> Saved:
        """Replace a step's base and deltas by one base of the same content and `id`, from the store alone."""
        manifest, before = self._read(step), self._chunks.written_bytes
        entries = {name: self._entry(name, table, None) for name, table in self._load(manifest).items()}
        compacted = manifest | {"tables": entries}
        written = self._commit(compacted) + self._chunks.written_bytes - before
        if self._parent == manifest:
            self._parent = compacted
        return _saved(compacted, full=True, written_bytes=written)

    def prune(self, keep: Iterable[int]) -> None:
        """Drop the other steps, and chunks that no kept one needs; only while nobody saves."""
        kept = set(keep)
        needed = {chunk["sha256"] for step in kept for chunk in _chunks_of(self._read(step))}
        for step in set(self.steps()) - kept:
            self._path(step).unlink()
        _flush_folder(self.root)  # first no manifest, then no chunks
        self._chunks.drop_all_but(needed)

    def _deltas(self, tables: Tables, touched: Touched) -> dict[str, torch.Tensor]:
        """The rows of the tables that are stored as rows: of none when it is time for a base."""
        before = self._parent["tables"] if self._parent is not None else {}
        rows = {
            name: _checked(name, indices, tables[name])
            for name, indices in touched.items()
            if _is_like(tables[name], before.get(name))
        }
        added = sum(_row_bytes(tables[name]) * len(numbers) for name, numbers in rows.items())
        kept = sum(delta["size"] for name in rows for delta in before[name]["deltas"])
        whole = sum(tables[name].nbytes for name in rows)
        return rows if added + kept <= self._compact_at * whole else {}

    def _entry(self, name: str, table: torch.Tensor, rows: torch.Tensor | None) -> dict[str, Any]:
        if table.dim() == 0:
            raise TradewindError(f"{name!r} has no rows; keep single numbers in the checkpoint's own state")
        if rows is None:
            content = _as_bytes(table).reshape(-1)
            base = [self._chunks.put(piece) for piece in _split(content, self._chunk_bytes)]
            return _describe(table) | {"base": base, "deltas": []}
        assert self._parent is not None
        before: dict[str, Any] = self._parent["tables"][name]
        return before | {"deltas": [*before["deltas"], *self._stored_rows(table, rows)]}

    def _stored_rows(self, table: torch.Tensor, rows: torch.Tensor) -> Iterator[dict[str, Any]]:
        content, kind = _as_bytes(table, on_host=False), _index_type(table)
        for part in _split(rows, max(1, self._chunk_bytes // max(1, _row_bytes(table)))):
            values = content.index_select(0, part.to(content.device)).cpu().reshape(-1)
            stored = torch.cat([part.to(kind).view(torch.uint8), values])
            yield self._chunks.put(stored) | {"rows": len(part)}

    def _load(self, manifest: dict[str, Any], into: Tables | None = None) -> dict[str, torch.Tensor]:
        return {name: self._restore(name, entry, into) for name, entry in manifest["tables"].items()}

    def _restore(self, name: str, entry: dict[str, Any], into: Tables | None) -> torch.Tensor:
        table = _target(name, entry, into)
        direct = table.device.type == "cpu" and table.is_contiguous()
        host = table if direct else torch.empty(table.shape, dtype=table.dtype)
        content, offset = _as_bytes(host), 0
        for chunk in entry["base"]:
            content.reshape(-1)[offset : offset + chunk["size"]] = self._chunks.get(chunk)
            offset += chunk["size"]
        for delta in entry["deltas"]:
            stored, kind = self._chunks.get(delta), _index_type(table)
            end = delta["rows"] * kind.itemsize
            rows = stored[:end].view(kind).long()
            content.index_copy_(0, rows, stored[end:].reshape(len(rows), -1))
        return table if direct else table.copy_(host)

    def _commit(self, manifest: dict[str, Any]) -> int:
        raw = seal(manifest)
        self._chunks.flush()
        _write_durably(self._path(manifest["step"]), raw)
        _flush_folder(self.root)
        _flush_folder(self.root.parent)
        return len(raw)

    def _read(self, step: int, id: str | None = None) -> dict[str, Any]:
        path = self._path(step)
        try:
            manifest = unseal(path.read_bytes(), path, FORMAT)
        except FileNotFoundError:
            raise NotFoundError(f"{path}: step {step} was not saved here") from None
        if id is not None and manifest["id"] != id:
            raise IntegrityError(f"{path} is not the save of step {step} that was asked for, but another")
        return manifest

    def _path(self, step: int) -> Path:
        return self.root / f"{_PREFIX}{step:012d}{_SUFFIX}"


class _Chunks:
    """Immutable bytes, each in a file named by its sha256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written_bytes = 0

    def put(self, content: torch.Tensor) -> dict[str, Any]:
        """Keep bytes; ones that are here already, and whole, are not written again."""
        data = content.numpy().data
        chunk = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        if not self._is_whole(chunk):
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_durably(self.folder / str(chunk["sha256"]), data)
            self.written_bytes += len(data)
        return chunk

    def get(self, chunk: dict[str, Any]) -> torch.Tensor:
        """The bytes, checked."""
        path = self.folder / chunk["sha256"]
        content = torch.empty(chunk["size"], dtype=torch.uint8)
        try:
            with path.open("rb") as file:
                read = file.readinto(content.numpy().data)
                more = file.read(1)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
        if read != chunk["size"] or more:
            raise IntegrityError(f"{path} is damaged: it has not the {chunk['size']} bytes that were written")
        if hashlib.sha256(content.numpy().data).hexdigest() != chunk["sha256"]:
            raise IntegrityError(f"{path} is damaged: its sha256 is not its name")
        return content

    def flush(self) -> None:
        """Make the names of all chunks durable."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _flush_folder(self.folder)
        _flush_folder(self.folder.parent)

    def drop_all_but(self, needed: set[str]) -> None:
        for path in self.folder.iterdir():
            if path.name not in needed:
                path.unlink()

    def _is_whole(self, chunk: dict[str, Any]) -> bool:
        if not (self.folder / chunk["sha256"]).exists():
            return False
        try:
            self.get(chunk)
        except IntegrityError:
            return False
        return True


def _saved(manifest: dict[str, Any], *, full: bool, written_bytes: int) -> Saved:
    whole = sum(_bytes_of(entry) for entry in manifest["tables"].values())
    return Saved(
        step=manifest["step"],
        id=manifest["id"],
        full=full,
        written_bytes=written_bytes,
        table_bytes=whole,
    )


def _bytes_of(entry: dict[str, Any]) -> int:
    return sum(int(chunk["size"]) for chunk in entry["base"])


def _describe(table: torch.Tensor) -> dict[str, Any]:
    return {"dtype": str(table.dtype).removeprefix("torch."), "shape": list(table.shape)}


def _is_like(table: torch.Tensor, entry: dict[str, Any] | None) -> bool:
    return entry is not None and entry | _describe(table) == entry


def _row_bytes(table: torch.Tensor) -> int:
    return table.nbytes // max(1, len(table))


def _index_type(table: torch.Tensor) -> torch.dtype:
    return torch.int32 if len(table) < 2**31 else torch.int64


def _as_bytes(table: torch.Tensor, *, on_host: bool = True) -> torch.Tensor:
    """Rows of bytes: the table's own memory when that is possible."""
    table = table.detach().cpu() if on_host else table.detach()
    flat = table.reshape(len(table), -1).contiguous()
    return flat.view(torch.uint8) if flat.numel() else torch.empty(len(table), 0, dtype=torch.uint8)


def _split(content: torch.Tensor, size: int) -> list[torch.Tensor]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def _target(name: str, entry: dict[str, Any], into: Tables | None) -> torch.Tensor:
    if into is None:
        return torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]))
    if name not in into or not _is_like(into[name], entry):
        raise TradewindError(
            f"the table {name!r} is {entry['dtype']} of shape {entry['shape']} in the checkpoint; "
            "give `into` one like it"
        )
    return into[name].detach()


def _checked(name: str, indices: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    rows: torch.Tensor = torch.unique(indices.detach().reshape(-1).cpu().long())
    if len(rows) and not 0 <= int(rows[0]) <= int(rows[-1]) < len(table):
        raise TradewindError(
            f"rows {int(rows[0])} to {int(rows[-1])} of {name!r} were touched, but it has {len(table)}"
        )
    return rows


def _chunks_of(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in manifest["tables"].values():
        yield from entry["base"]
        yield from entry["deltas"]


def _write_durably(path: Path, data: bytes | memoryview) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _flush_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
