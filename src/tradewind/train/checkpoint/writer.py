"""Write a checkpoint so that at any instant the folder holds whole ones only."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tradewind.errors import TradewindError
from tradewind.names import MANIFEST
from tradewind.train.checkpoint import files
from tradewind.train.checkpoint.manifest import Manifest
from tradewind.train.checkpoint.reader import folder_of, numbered
from tradewind.train.checkpoint.tree import Flattener
from tradewind.train.distributed import Peers

_WRITING = ".writing-"
_DROPPED = ".dropped-"


def save(
    root: Path,
    step: int,
    shared: dict[str, Any],
    own: dict[str, Any] | None = None,
    *,
    peers: Peers | None = None,
) -> Path:
    """Commit a checkpoint and return its folder; every worker calls it.

    `shared` is what all workers hold alike, and rank 0 writes it; `own` is each worker's. Everything
    is written and flushed under another name, then the manifest, then one rename commits it. When
    any worker fails to write, every worker gets a TradewindError and nothing is committed.
    """
    peers = peers or Peers()
    writing = root / f"{_WRITING}{folder_of(root, step).name}"
    written, why = _try_write(writing, peers.rank, shared, own)
    answers = peers.gather({"files": written, "why": why})
    _raise_first(answers, step)
    why = None
    if peers.rank == 0:
        entries = {name: entry for answer in answers for name, entry in answer["files"].items()}
        why = _try_commit(root, writing, Manifest(step=step, world=peers.world, files=entries))
    _raise_first([peers.from_first({"why": why})], step)
    return folder_of(root, step)


def _raise_first(answers: list[dict[str, Any]], step: int) -> None:
    for rank, answer in enumerate(answers):
        if answer["why"]:
            raise TradewindError(
                f"the checkpoint of step {step} was not written: rank {rank}: {answer['why']}"
            )


def _try_write(
    writing: Path, rank: int, shared: dict[str, Any], own: dict[str, Any] | None
) -> tuple[dict[str, Any], str | None]:
    try:
        writing.mkdir(parents=True, exist_ok=True)
        written = _write(writing, f"rank{rank:05d}", own or {})
        if rank == 0:
            written |= _write(writing, "shared", shared)
        files.fsync_dir(writing)
    except (OSError, TradewindError) as error:
        return {}, str(error)
    return written, None


def _write(folder: Path, stem: str, state: dict[str, Any]) -> dict[str, Any]:
    flattener = Flattener()
    tree = json.dumps(flattener.encode(state), allow_nan=False, separators=(",", ":")).encode()
    return {
        f"{stem}.safetensors": files.write_file(
            folder / f"{stem}.safetensors", files.tensor_chunks(flattener.tensors)
        ),
        f"{stem}.json": files.write_file(folder / f"{stem}.json", [tree]),
    }


def _try_commit(root: Path, writing: Path, manifest: Manifest) -> str | None:
    unseen = [name for name in manifest.files if not (writing / name).exists()]
    if unseen:
        return f"rank 0 does not see {', '.join(unseen)} in {writing}; all workers must share this folder"
    try:
        for stray in [path for path in writing.iterdir() if path.name not in manifest.files]:
            stray.unlink()  # left by a writer that was killed at this very step
        files.write_file(writing / MANIFEST, [manifest.to_bytes()])
        files.fsync_dir(writing)
        target = folder_of(root, manifest.step)
        if target.exists():
            _drop(target)
        writing.rename(target)
        files.fsync_dir(root)
        files.fsync_dir(root.parent)
    except OSError as error:
        return str(error)
    return None


def prune(root: Path, *, keep: int, step: int) -> None:
    """Drop all but the `keep` newest up to this step, and what is beyond it: a refused timeline."""
    known = numbered(root)
    kept = sorted(number for number in known if number <= step)[-keep:]
    for number, folder in known.items():
        if number not in kept:
            _drop(folder)


def clean(root: Path) -> None:
    """Remove what a writer that was killed left behind; only while nobody writes."""
    for left in [*root.glob(f"{_WRITING}*"), *root.glob(f"{_DROPPED}*")]:
        shutil.rmtree(left, ignore_errors=True)


def _drop(folder: Path) -> None:
    # Renamed first, so that a kill halfway through leaves no half checkpoint under a whole one's name.
    dropped = folder.with_name(f"{_DROPPED}{folder.name}-{os.getpid()}")
    folder.rename(dropped)
    shutil.rmtree(dropped, ignore_errors=True)
