"""Where the hosts of a run would go: the nodes that take them, now or once everything else has ended."""

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from tradewind.launch.kubernetes.ask import Ask
from tradewind.launch.why.dump import World
from tradewind.launch.why.fit import Rooms, Seat, Seating, kept_apart, rooms_of, seats_for, times


class Spot(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts of the run on one node."""

    node: str
    hosts: int


class Seats:
    """A cluster as one run sees it; all of a run's hosts are alike, so adding up is exact."""

    def __init__(self, ask: Ask, world: World, rooms: Rooms | None = None) -> None:
        self.ask = ask
        self.seating = Seating(world, ask.pod, rooms or rooms_of(world))
        self.need = self.seating.need

    @functools.cached_property
    def welcome(self) -> list[Seat]:
        """Open nodes from which no pod that is there keeps the hosts away."""
        refused = set(kept_apart(self.seating))
        return [seat for seat in self.seating.open if seat.name not in refused]

    @functools.cached_property
    def now(self) -> int:
        """How many hosts have room at once now."""
        return seats_for(self._best(self.welcome, empty=False), self.need)

    @functools.cached_property
    def ever(self) -> int:
        """How many would have room at once if everything but the nodes' own pods had ended."""
        return seats_for(self._best(self.seating.open, empty=True), self.need, empty=True)

    def spots(self) -> tuple[Spot, ...]:
        """Nodes that the hosts could go to now: the freest first, as the scheduler prefers them."""
        left, found = self.ask.hosts, []
        for seat in sorted(self._best(self.welcome, empty=False), key=lambda s: -times(self.need, s.free)):
            here = min(left, times(self.need, seat.free))
            if here:
                found.append(Spot(node=seat.name, hosts=here))
                left -= here
        return tuple(found)

    def domains(self, seats: Iterable[Seat]) -> dict[str, list[Seat]]:
        """The nodes by what all hosts must share; without such a rule they are all one domain."""
        found: dict[str, list[Seat]] = defaultdict(list)
        for seat in seats:
            if self.ask.topology is None:
                found[""].append(seat)
            elif domain := seat.node.metadata.labels.get(self.ask.topology):
                found[domain].append(seat)
        return found

    def _best(self, seats: Sequence[Seat], *, empty: bool) -> list[Seat]:
        """The domain that takes most of the hosts."""
        options = self.domains(seats).values()
        return max(options, key=lambda each: seats_for(each, self.need, empty), default=[])
