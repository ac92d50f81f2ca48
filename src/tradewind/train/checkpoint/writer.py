"""Write a checkpoint so that at any instant the folder holds whole ones only."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tradewind.errors import TradewindError
from tradewind.names import MANIFEST
from tradewind.train.checkpoint import files, parts, stream
from tradewind.train.checkpoint.files import Entry
from tradewind.train.checkpoint.layout import Layout, State
from tradewind.train.checkpoint.manifest import Manifest
from tradewind.train.checkpoint.parts import Worker
from tradewind.train.checkpoint.reader import folder_of, numbered
from tradewind.train.distributed import Peers

_WRITING = ".writing-"
_DROPPED = ".dropped-"

Writing = Callable[[Path], tuple[dict[str, Entry], str]]
"""Write this worker's files into a folder; their entries, and the digest of what all have in common."""


def save(
    root: Path,
    step: int,
    shared: dict[str, Any],
    own: dict[str, Any] | None = None,
    *,
    peers: Peers | None = None,
) -> Path:
    """Commit a checkpoint and return its folder; every worker calls it, and waits until it is durable.

    `shared` is what all workers hold alike, of which each writes its part, or have a cut of; `own` is
    each worker's. Everything is written and flushed under another name, then the manifest, then one
    rename commits it. When any worker fails to write, every worker gets a TradewindError and nothing
    is committed.
    """
    peers = peers or Peers()
    folder, _ = commit(root, step, peers, lambda folder: _write_state(folder, peers, shared, own or {}))
    return folder


def commit(root: Path, step: int, peers: Peers, write: Writing) -> tuple[Path, int]:
    """Have every worker write its files, and make them a checkpoint when all have; it, and its bytes."""
    writing = root / f"{_WRITING}{folder_of(root, step).name}"
    answers = peers.gather(_try_write(writing, write))
    why = None
    entries = {name: entry for answer in answers for name, entry in answer["files"].items()}
    if peers.rank == 0:
        why = _failed(answers) or _try_commit(
            root, writing, Manifest(step=step, world=peers.world, files=entries)
        )
        if why:
            # Everyone has ended its writing: a disk that is full gets its room back.
            shutil.rmtree(writing, ignore_errors=True)
    why = peers.from_first(why)
    if why:
        raise TradewindError(f"the checkpoint of step {step} was not written: {why}")
    return folder_of(root, step), sum(entry["size"] for entry in entries.values())


def _failed(answers: list[dict[str, Any]]) -> str | None:
    for rank, answer in enumerate(answers):
        if answer["why"]:
            return f"rank {rank}: {answer['why']}"
    return _differing(answers)


def _try_write(writing: Path, write: Writing) -> dict[str, Any]:
    try:
        writing.mkdir(parents=True, exist_ok=True)
        written, digest = write(writing)
        files.fsync_dir(writing)
    except (OSError, TradewindError) as error:
        return {"files": {}, "why": str(error)}
    return {"files": written, "digest": digest, "why": None}


def _write_state(
    folder: Path, peers: Peers, shared: dict[str, Any], own: dict[str, Any]
) -> tuple[dict[str, Entry], str]:
    worker = Worker(rank=peers.rank, world=peers.world, local_rank=peers.rank, local_world=peers.world)
    with torch.no_grad():
        state = State.take(worker.rank, shared, own)
        layout = Layout.plan(worker, state)
        written = {
            file.name: files.write_blocks(folder / file.name, file.size, stream.blocks(file, tensors))
            for file in layout.files
            for tensors in [state.own.tensors if file.is_own else state.shared.tensors]
        }
    for name, text in state.trees.items():
        if parts.writes(worker.rank, worker.world, name):
            written[name] = files.write_file(folder / name, text)
    return written, layout.digest


def _differing(answers: list[dict[str, Any]]) -> str | None:
    for rank, answer in enumerate(answers):
        if answer["digest"] != answers[0]["digest"]:
            return (
                f"rank {rank} has other shared tensors than rank 0: what is not alike on all workers in name, "
                "type and shape belongs into `own`"
            )
    return None


def _try_commit(root: Path, writing: Path, manifest: Manifest) -> str | None:
    unseen = [name for name in manifest.files if not (writing / name).exists()]
    if unseen:
        return f"rank 0: it does not see {', '.join(unseen)} in {writing}; all workers must share this folder"
    try:
        for stray in [path for path in writing.iterdir() if path.name not in manifest.files]:
            stray.unlink()  # left by a writer that was killed at this very step
        files.write_file(writing / MANIFEST, manifest.to_bytes())
        files.fsync_dir(writing)
        target = folder_of(root, manifest.step)
        if target.exists():
            _drop(target)
        writing.rename(target)
        files.fsync_dir(root)
        files.fsync_dir(root.parent)
    except OSError as error:
        return f"rank 0: {error}"
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
