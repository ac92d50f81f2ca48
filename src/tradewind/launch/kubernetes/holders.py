"""Whose work must end before a run has room: few of them, not the fewest."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from tradewind.launch.kubernetes.ask import amounts
from tradewind.launch.kubernetes.seats import Seats
from tradewind.launch.why.amounts import Room, add, need_of
from tradewind.launch.why.dump import World
from tradewind.launch.why.fit import Seat, holding, seats_for, stays, times
from tradewind.launch.why.placement import owner_of


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's work that holds what the run needs."""

    owner: str
    """Such as `team/job/train`."""
    nodes: tuple[str, ...]
    holds: dict[str, str]


Held = dict[str, dict[str, Room]]
"""Owner -> node -> what its pods there hold."""


def must_end(seats: Seats, world: World) -> tuple[Holder, ...]:
    """Owners without whose pods all hosts have room: node by node, where the fewest have to go.

    Every one of them is needed: without the others' end and with its own missing, the run does not fit.
    """
    open_nodes = {seat.name for seat in seats.seating.open}
    held = held_by_owner(world, open_nodes)
    best: list[str] | None = None
    for domain in seats.domains(seats.seating.open).values():
        ending = _clear(seats, domain, held)
        if ending is not None and (best is None or len(ending) < len(best)):
            best = ending
    return tuple(_holder(owner, held[owner], seats.need) for owner in best or ())


def held_by_owner(world: World, nodes: Iterable[str]) -> Held:
    """What everybody holds on these nodes; the nodes' own pods stay and are nobody's."""
    wanted, held = set(nodes), defaultdict[str, dict[str, Room]](dict)
    for pod in holding(world):
        if pod.spec.node_name in wanted and not stays(pod):
            add(held[owner_of(pod)].setdefault(pod.spec.node_name, {}), need_of(pod.spec))
    return held


class _Cleared:
    """One domain's nodes as owners leave them and come back."""

    def __init__(self, need: Room, free: dict[str, Room], held: Held) -> None:
        self.need, self.held = need, held
        self.free = {node: dict(room) for node, room in free.items()}
        self.seats = sum(times(need, room) for room in free.values())

    def leave(self, owner: str, sign: float = 1.0) -> None:
        for node, room in self.held[owner].items():
            if node in self.free:
                before = times(self.need, self.free[node])
                add(self.free[node], room, sign)
                self.seats += times(self.need, self.free[node]) - before


def _clear(seats: Seats, domain: list[Seat], held: Held) -> list[str] | None:
    """The owners to wait for in one domain; None when it never has room."""
    need, hosts = seats.need, seats.ask.hosts
    if seats_for(domain, need, empty=True) < hosts:
        return None
    on_node = defaultdict[str, list[str]](list)
    for owner, rooms in held.items():
        for node in rooms:
            on_node[node].append(owner)
    cleared = _Cleared(need, {seat.name: seat.free for seat in domain}, held)
    ending: list[str] = []
    for seat in sorted(domain, key=lambda seat: len(on_node[seat.name])):
        if cleared.seats >= hosts:
            break
        if times(need, seat.size) > times(need, cleared.free[seat.name]):
            for owner in on_node[seat.name]:
                if owner not in ending:
                    ending.append(owner)
                    cleared.leave(owner)
    for owner in list(ending):
        cleared.leave(owner, sign=-1.0)
        if cleared.seats >= hosts:
            ending.remove(owner)
        else:
            cleared.leave(owner)
    return ending


def _holder(owner: str, rooms: dict[str, Room], need: Room) -> Holder:
    total: Room = {}
    for each in rooms.values():
        add(total, {name: value for name, value in each.items() if name in need})
    return Holder(owner=owner, nodes=tuple(sorted(rooms)), holds=amounts(total))
