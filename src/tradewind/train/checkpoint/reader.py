"""Read checkpoints, refusing what is not whole."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tradewind.errors import IntegrityError
from tradewind.train.checkpoint.loaded import Loaded
from tradewind.train.checkpoint.manifest import Manifest, read_manifest
from tradewind.train.checkpoint.tree import decode

_PREFIX = "step-"


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"{_PREFIX}{step:012d}"


def numbered(root: Path) -> dict[int, Path]:
    """Committed checkpoints by step, whole or not."""
    found = {}
    for folder in root.glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX)
        if number.isdecimal() and folder.is_dir():
            found[int(number)] = folder
    return found


def steps(root: Path) -> list[int]:
    """Steps that have a committed checkpoint, oldest first, whole or not."""
    return sorted(numbered(root))


def verify(folder: Path) -> Manifest:
    """Read and check every byte; an IntegrityError names the file that is not as it was written."""
    manifest = read_manifest(folder)
    for name in manifest.files:
        _check(folder, manifest, name)
    return manifest


def _check(folder: Path, manifest: Manifest, name: str) -> None:
    path, expected = folder / name, manifest.files[name]
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
    if size != expected["size"]:
        raise IntegrityError(f"{path} is damaged: {size} bytes where {expected['size']} were written")
    if found != expected["sha256"]:
        raise IntegrityError(f"{path} is damaged: its sha256 is not the one that was written")


def load(folder: Path, rank: int = 0, *, others: bool = True) -> Loaded:
    """The verified content for one rank; rank 0's own for a rank the checkpoint never had.

    Every file is checked, or, without `others`, those that are read. Tensors are in host memory.
    """
    manifest = verify(folder) if others else read_manifest(folder)
    owner = f"rank{rank if rank < manifest.world else 0:05d}"
    if not others:
        for name in (f"{stem}.{kind}" for stem in ("shared", owner) for kind in ("safetensors", "json")):
            _check(folder, manifest, name)
    shared, own = _read(folder, "shared"), _read(folder, owner)
    return Loaded(step=manifest.step, world=manifest.world, shared=shared, own=own)


def _read(folder: Path, stem: str) -> dict[str, Any]:
    tree = json.loads((folder / f"{stem}.json").read_bytes())
    with safe_open(folder / f"{stem}.safetensors", framework="pt") as file:
        # Copies: the file is mapped, will be pruned while the tensors live, and may be damaged before.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    state: dict[str, Any] = decode(tree, tensors)
    return state


def latest(root: Path, on_damaged: Callable[[Path, IntegrityError], None] | None = None) -> Path | None:
    """The newest whole checkpoint; damaged ones are passed over, after `on_damaged` was told."""
    for folder in reversed([folder_of(root, step) for step in steps(root)]):
        try:
            verify(folder)
        except IntegrityError as error:
            if on_damaged is not None:
                on_damaged(folder, error)
            continue
        return folder
    return None
