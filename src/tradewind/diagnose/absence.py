"""When a run was not there at all, though it was not over: between its agents' leave and their return, and why."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tradewind.diagnose.ledger import AttemptLike, EventLike

CLUSTER = "cluster"
"""Kind of the events that say what a cluster did to a run: `what` it did, and what it `said`."""
KINDS = ("preempted", "suspended", "evicted")
"""What a cluster does to a run that takes all its hosts away; anything else is `pending`."""


class Absence(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was told to end, and came back."""

    attempt: int
    """The last one before it."""
    kind: str
    """One of `KINDS`, or `pending` where nothing is known but that it waited."""
    begin_s: float
    """When its workers had committed and ended."""
    back_s: float
    """When an agent of it was there again."""
    end_s: float
    """When its next attempt began."""
    why: str = ""
    """In the cluster's words."""


def absences(events: "Sequence[EventLike]", attempts: "Sequence[AttemptLike]") -> list[Absence]:
    """Every absence of a run, in order. `events` and `attempts` are all of the run's, by the store's clock."""
    ordered = sorted((a for a in attempts if a.started_s is not None), key=lambda a: a.index)
    found = (absence(events, before, after) for before, after in pairwise(ordered))
    return [one for one in found if one is not None]


def absence(events: "Sequence[EventLike]", before: "AttemptLike", after: "AttemptLike") -> Absence | None:
    """The absence between two attempts; None where the agents stayed and formed the next group themselves."""
    asked = any(e.attempt == before.index and e.kind == "asked" for e in events)
    if not asked or before.ended_s is None or after.started_s is None or before.started_s is None:
        return None
    begin_s, end_s = before.ended_s, max(before.ended_s, after.started_s)
    told = [
        e
        for e in events
        if e.kind == CLUSTER and before.started_s <= e.t_s <= end_s and e.data["what"] in KINDS
    ]
    last = max(told, key=lambda e: e.t_s, default=None)
    back = [e.t_s for e in events if e.kind == "waiting" and begin_s <= e.t_s <= end_s]
    return Absence(
        attempt=before.index,
        kind=last.data["what"] if last else "pending",
        begin_s=begin_s,
        back_s=min(back, default=end_s),
        end_s=end_s,
        why=str(last.data["said"]) if last else "",
    )
