"""Whether a run fits a cluster now, later, or never as it is: a pure function of what is asked and what is there."""

from collections.abc import Iterator

import msgspec

from tradewind.launch.kubernetes.allowed import Allowance, Queue, flavors
from tradewind.launch.kubernetes.ask import Ask, amounts, counted
from tradewind.launch.kubernetes.changes import changes
from tradewind.launch.kubernetes.holders import Holder, must_end
from tradewind.launch.kubernetes.seats import Seats, Spot
from tradewind.launch.kubernetes.situation import Situation, Verdict
from tradewind.launch.why.cause import plain
from tradewind.launch.why.dump import World
from tradewind.launch.why.kinds import Quota


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What a run asks of a cluster and whether it gets it."""

    verdict: Verdict
    because: str
    each: dict[str, str]
    """What each host asks for."""
    all: dict[str, str]
    """What all of them ask for."""
    free: dict[str, str]
    """What is free on the nodes that take such hosts."""
    quotas: tuple[str, ...]
    room_now: int
    """How many of the hosts have room at once now."""
    room_ever: int
    nodes: tuple[Spot, ...] = ()
    """Where the hosts could go now."""
    must_end: tuple[Holder, ...] = ()
    changes: tuple[str, ...] = ()
    """The smallest changes, each of which alone would make it fit."""
    notes: tuple[str, ...] = ()


def outlook(ask: Ask, world: World) -> Outlook:
    """Decide. What the user may not read counts as unlimited, but without nodes and their pods nothing fits for sure."""
    found = Situation(ask, world)
    verdict, seats = found.verdict(), found.seats
    first = next((reason.text for reason in found.reasons() if reason.verdict is verdict), "")
    waits_for_room = verdict is Verdict.LATER and seats.now < ask.hosts
    return Outlook(
        verdict=verdict,
        because=plain(because(verdict, first, found)),
        each=amounts(ask.need),
        all=amounts(ask.need, ask.hosts),
        free=free_of(seats),
        quotas=tuple(str(each) for each in (*found.quotas, *in_queue(ask, found.queue))),
        room_now=seats.now,
        room_ever=seats.ever,
        nodes=seats.spots() if verdict is Verdict.NOW else (),
        must_end=must_end(seats, world) if waits_for_room else (),
        changes=changes(found) if verdict is Verdict.NEVER else (),
        notes=tuple(notes(ask, world)),
    )


def because(verdict: Verdict, first: str, found: Situation) -> str:
    """One sentence."""
    if verdict is Verdict.UNKNOWN:
        return "nodes and the pods on them may not be read, so whether there is room is not known"
    if verdict is Verdict.NOW:
        hosts, nodes = counted(found.ask.hosts), counted(len(found.seats.spots()), "node")
        return f"room for {hosts} at once on {nodes}"
    return first


def in_queue(ask: Ask, queue: Queue) -> list[Allowance]:
    """The run beside what its queue has."""
    if queue.cluster_queue is None:
        return []
    return [each for group in flavors(ask, queue.cluster_queue) for found in group.values() for each in found]


def free_of(seats: Seats) -> dict[str, str]:
    """What is free of what the run asks for, on the nodes that take its hosts."""
    total = {
        name: sum(max(0.0, seat.free.get(name, 0.0)) for seat in seats.seating.open) for name in seats.need
    }
    return amounts(total)


def notes(ask: Ask, world: World) -> Iterator[str]:
    """What was not taken into account."""
    for quota in world.all(Quota, ask.namespace):
        if quota.spec.scopes or quota.spec.scope_selector:
            yield f"quota {quota.metadata.name} is for some pods only and was not counted"
    if ask.claims:
        yield f"devices of {', '.join(ask.claims)} are chosen by the scheduler and were not counted"
