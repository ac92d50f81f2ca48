"""Choose the state to go on from: the newest that every worker finds whole, in memory or on disk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradewind.errors import IntegrityError
from tradewind.train import checkpoint
from tradewind.train.checkpoint import Loaded, Memory
from tradewind.train.checkpoint.reader import folder_of
from tradewind.train.checkpoint.writer import clean
from tradewind.train.distributed import Peers
from tradewind.train.journal import Journal

_TIERS = ("disk", "memory")
"""By preference, where both have a step."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A step's state, and which tier it came from."""

    tier: str
    place: Path
    loaded: Loaded


def newest_whole(
    root: Path,
    peers: Peers,
    journal: Journal,
    memory: Memory | None = None,
    mesh: Any = None,
    present: Callable[[], Mapping[str, Any]] = dict,
) -> Found | None:
    """The newest state that loads on every worker, or None when there is none at all.

    What is cut over the workers comes cut for the present ones: DTensors on `mesh`, whole without one. What comes from
    disk is put into the tensors of the shared state that is `present` where it fits; it is asked for only then.

    Raises an IntegrityError when there are checkpoints on disk and nothing is whole: starting from
    nothing would throw away what a person may still be able to save.
    """
    if peers.rank == 0:
        clean(root)
    damages = []
    for step, tier in _candidates(root, peers, memory):
        place = folder_of(root, step) if tier == "disk" or memory is None else memory.folder
        loaded, why = _try_load(place, step, peers, memory if tier == "memory" else None, mesh, present)
        reasons = [reason for reason in peers.gather(why) if reason]
        if loaded is not None and not reasons:
            return Found(tier=tier, place=place, loaded=loaded)
        damages += reasons[:1] if tier == "disk" else []
        if peers.rank == 0:
            journal.write("damaged", path=place, why=reasons[0])
    if damages:
        raise IntegrityError(
            f"no checkpoint in {root} is whole ({'; '.join(damages)}); restore one from a copy, or move "
            "the folder away to start from nothing"
        )
    return None


def _candidates(root: Path, peers: Peers, memory: Memory | None) -> list[tuple[int, str]]:
    """Steps and their tier, best first; of memory, what is in every host's."""
    offers = peers.gather(
        {
            "memory": memory.steps() if memory else [],
            "disk": checkpoint.steps(root) if peers.rank == 0 else [],
        }
    )
    in_memory = set.intersection(*(set(offer["memory"]) for offer in offers))
    steps = [(step, "memory") for step in in_memory] + [(step, "disk") for step in offers[0]["disk"]]
    return sorted(steps, key=lambda one: (one[0], _TIERS.index(one[1])), reverse=True)


def _try_load(
    place: Path,
    step: int,
    peers: Peers,
    memory: Memory | None,
    mesh: Any,
    present: Callable[[], Mapping[str, Any]],
) -> tuple[Loaded | None, str | None]:
    try:
        if memory is not None:
            return memory.load(step, mesh=mesh), None
        loaded = checkpoint.load(
            place, peers.rank, world=peers.world, mesh=mesh, check="together", into=(present(), {})
        )
        return loaded, None
    except IntegrityError as error:
        return None, str(error)
