"""Making a base, and making it anew from what changed since."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from tradewind.retrieve.attributes import Attributes, join
from tradewind.retrieve.base import Learnt
from tradewind.retrieve.columns import Mask
from tradewind.retrieve.inverted import Inverted
from tradewind.retrieve.measure import measure
from tradewind.retrieve.plan import Profile
from tradewind.retrieve.segments import Base, Chunk, Dead, State, merged

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MIN_INVERTED = 16_384
"""Below this an exact scan of all is faster than probing, or as fast."""
_RETRAIN_SHARE = 0.5
_PROFILE = "profile"


def build_base(
    vectors: Floats,
    alive: Mask,
    attributes: Attributes | None,
    *,
    target: float,
    queries: Floats | None = None,
    like: Base | None = None,
    changed: int = 0,
    learnt: Learnt | None = None,
) -> Base:
    """A base over the rows that are alive; `like` lends its centroids while fewer than half of its items changed.

    What was `learnt` of the same rows is taken as it is. Raises ValueError where it does not fit them.
    """
    positions = np.flatnonzero(alive)
    if len(positions) < MIN_INVERTED:
        return Base(vectors, attributes, None, None, 0)
    rows = vectors[positions]
    if learnt is not None:
        inverted = Inverted(learnt["centroids"], rows, positions, learnt["assigned"])
        return Base(vectors, attributes, inverted, _profile_of(learnt), 0)
    old = like.inverted if like is not None else None
    total = changed if like is None else changed + like.num_changed
    if old is not None and total < _RETRAIN_SHARE * len(positions):
        inverted = Inverted(old.centroids, rows, positions)
    else:
        inverted, total = Inverted.trained(rows, positions), 0
    profile = measure(vectors, inverted, attributes, target=target, queries=queries)
    return Base(vectors, attributes, inverted, profile, total)


def learnt_of(base: Base) -> Learnt:
    """What `build_base` makes the same base of."""
    if base.inverted is None or base.profile is None:
        return {}
    profile = np.frombuffer(msgspec.json.encode(base.profile), dtype=np.uint8)
    return {"centroids": base.inverted.centroids, "assigned": base.inverted.assigned, _PROFILE: profile}


def _profile_of(learnt: Learnt) -> Profile:
    try:
        return msgspec.json.decode(learnt[_PROFILE].tobytes(), type=Profile)
    except msgspec.DecodeError as error:
        raise ValueError(f"what the lists measured is not in today's form: {error}") from None


def rebuilt(state: State, *, target: float, queries: Floats | None) -> tuple[Base, Dead]:
    """A base that holds what `state` does, each item at its position."""
    base, fresh = state.base, [chunk for chunk in state.chunks if chunk.num_alive]
    source = np.zeros(state.num_items, dtype=np.int64)
    source[: len(base.vectors)] = np.arange(len(base.vectors))
    alive = np.zeros(state.num_items, dtype=np.bool_)
    alive[: len(base.vectors)] = ~state.dead.flags
    vectors, attributes, changed = base.vectors, base.attributes, state.dead.removed
    if fresh:
        newest = merged(fresh)
        source[newest.positions] = len(vectors) + np.arange(len(newest.positions))
        alive[newest.positions] = True
        vectors = np.concatenate([vectors, newest.vectors])
        changed += len(newest.positions)
        if attributes is not None and newest.attributes is not None:
            attributes = join([attributes, newest.attributes])
    attributes = None if attributes is None else attributes.take(source)
    made = build_base(
        vectors[source], alive, attributes, target=target, queries=queries, like=base, changed=changed
    )
    return made, Dead.of(~alive, 0)


def carried_over(now: State, base: Base, dead: Dead, touched: Sequence[Ints]) -> State:
    """The state over a new base, with what changed while it was built: positions `touched` since."""
    places = np.unique(np.concatenate(touched)) if touched else np.zeros(0, dtype=np.int64)
    later = [chunk.only(np.isin(chunk.positions, places) & chunk.alive) for chunk in now.chunks]
    later = [chunk for chunk in later if chunk.num_alive]
    chunks: tuple[Chunk, ...] = (merged(later),) if later else ()
    return State(base, with_dead(dead, places), chunks, now.num_items)


def with_dead(dead: Dead, places: Ints) -> Dead:
    """As `dead`, with the items at `places` gone too; places beyond it are fresh items'."""
    inside = places[places < len(dead.flags)]
    inside = np.unique(inside[~dead.flags[inside]])
    if not len(inside):
        return dead
    flags = dead.flags.copy()
    flags[inside] = True
    return Dead.of(flags, dead.removed + len(inside))
