"""A run beside a cluster: what keeps it from starting, for now or as long as the cluster is as it is."""

import enum
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from tradewind.launch.kubernetes.allowed import flavors, labels_of, queue_of, quotas, uncovered, unsaid
from tradewind.launch.kubernetes.ask import Ask, counted, listed
from tradewind.launch.kubernetes.seats import Seats
from tradewind.launch.why.dump import World
from tradewind.launch.why.fit import Rooms, rooms_of

_COMBINATIONS = 16
"""Of Kueue's flavors that are tried; a queue has a few."""


class Verdict(enum.StrEnum):
    """When the run would have all of its hosts."""

    NOW = "fits now"
    LATER = "fits later"
    NEVER = "can never fit"
    """Not as the cluster is, even if everything else on it had ended: waiting does not help."""
    UNKNOWN = "unknown"


class Reason(NamedTuple):
    """Why a run does not fit: never as things are, or only for now."""

    verdict: Verdict
    text: str


class Situation:
    """A run and a cluster, with everything that is worked out about the two once."""

    def __init__(self, ask: Ask, world: World, rooms: Rooms | None = None) -> None:
        self.ask, self.world = ask, world
        self.rooms = rooms or rooms_of(world)
        self.quotas = quotas(ask, world)
        self.queue = queue_of(ask, world)
        options = [
            self._seats(labels) for labels in itertools.islice(self._flavor_labels(), _COMBINATIONS)
        ] or [self._seats({})]
        self.seats = max(options, key=lambda each: (each.now >= ask.hosts, each.ever >= ask.hosts, each.now))

    def _seats(self, labels: dict[str, str]) -> Seats:
        """The nodes, of those that have the labels."""
        ask = self.ask
        if labels:
            ask = ask.with_spec(node_selector=ask.pod.spec.node_selector | labels)
        return Seats(ask, self.world, self.rooms)

    def _flavor_labels(self) -> Iterator[dict[str, str]]:
        """The labels of the nodes that the queue's flavors stand for, those with room in their quota first."""
        if self.queue.cluster_queue is None:
            return
        groups = [
            sorted(
                (name for name, found in group.items() if all(each.may_fit for each in found)),
                key=lambda name: not all(each.fits for each in group[name]),
            )
            for group in flavors(self.ask, self.queue.cluster_queue)
        ]
        for combination in itertools.product(*groups):
            merged: dict[str, str] = {}
            for name in combination:
                merged |= labels_of(name, self.world)
            yield merged

    def reasons(self) -> list[Reason]:
        """Everything that keeps the run from starting now."""
        return [*self._by_quota(), *self._by_queue(), *missing(self.ask, self.world), *self._by_nodes()]

    def verdict(self) -> Verdict:
        """The worst of the reasons; without sight of the nodes and of the pods on them only a never is sure."""
        known = {reason.verdict for reason in self.reasons()}
        if Verdict.NEVER in known:
            return Verdict.NEVER
        if not {"Node", "Pod"} <= self.world.complete:
            return Verdict.UNKNOWN
        return Verdict.LATER if known else Verdict.NOW

    def _by_quota(self) -> Iterator[Reason]:
        for each in self.quotas:
            if not each.fits:
                yield Reason(Verdict.LATER if each.may_fit else Verdict.NEVER, str(each))
        for name in unsaid(self.ask, self.world):
            yield Reason(
                Verdict.NEVER, f"a quota counts {name}, which the pods do not state; they are refused"
            )

    def _by_queue(self) -> Iterator[Reason]:
        queue = self.queue
        if queue.problem:
            yield Reason(Verdict.NEVER, queue.problem)
        if queue.stopped:
            yield Reason(Verdict.LATER, queue.stopped)
        if queue.cluster_queue is None:
            return
        if names := uncovered(self.ask, queue.cluster_queue):
            yield Reason(
                Verdict.NEVER,
                f"ClusterQueue {queue.cluster_queue.metadata.name} has no quota of {', '.join(names)}",
            )
        for group in flavors(self.ask, queue.cluster_queue):
            if any(all(each.fits for each in found) for found in group.values()):
                continue
            waits = any(all(each.may_fit for each in found) for found in group.values())
            short = [each for found in group.values() for each in found if not each.fits]
            yield Reason(Verdict.LATER if waits else Verdict.NEVER, str(short[0]))

    def _by_nodes(self) -> Iterator[Reason]:
        hosts, seats = self.ask.hosts, self.seats
        if "Node" not in self.world.complete or seats.now >= hosts:
            return
        if seats.ever < hosts:
            yield Reason(Verdict.NEVER, no_room(seats))
        else:
            yield Reason(Verdict.LATER, f"room for {seats.now} of {counted(hosts)} now")


def no_room(seats: Seats) -> str:
    """Why the nodes do not hold the run even empty: the first of the scheduler's filters that leaves too few."""
    ask, seating = seats.ask, seats.seating
    if not seating.seats:
        return "the cluster has no nodes"
    if not seating.chosen:
        wanted = ", ".join(f"{k}={v}" for k, v in ask.pod.spec.node_selector.items())
        return f"no node is one that the run may go to ({wanted or 'its required affinity'})"
    if not seating.large:
        most = {
            name: max(seat.size.get(name, 0.0) for seat in seating.chosen)
            for name in seats.need
            if all(seat.size.get(name, 0.0) < seats.need[name] for seat in seating.chosen)
        }
        asked = {name: value for name, value in seats.need.items() if not most or name in most}
        had = listed(most) if most else "one or another of these"
        return f"each host asks for {listed(asked)}; no node of {len(seating.chosen)} has more than {had}"
    if not seating.open:
        barred = sorted({bar.value for seat in seating.large for bar in seat.bars})
        return f"the {len(seating.large)} nodes large enough are closed to it ({', '.join(barred)})"
    where = f" within one {ask.topology}" if ask.topology else ""
    return f"{counted(len(seating.open), 'node')} may take them, with room for {seats.ever} of {counted(ask.hosts)} at once{where}, even empty"


def missing(ask: Ask, world: World) -> Iterator[Reason]:
    """Objects that the pods refer to and that are not there."""
    spec, place = ask.pod.spec, ask.namespace
    named = [
        ("PersistentVolumeClaim", v.persistent_volume_claim.claim_name)
        for v in spec.volumes
        if v.persistent_volume_claim
    ]
    named += [("ResourceClaimTemplate", name) for name in ask.claims]
    named += [("ServiceAccount", spec.service_account_name)] if spec.service_account_name else []
    for kind, name in dict.fromkeys(named):
        if kind in world.complete and name not in world.names(kind, place):
            yield Reason(Verdict.NEVER, f"there is no {kind} {name} in namespace {place}")
    name = spec.priority_class_name
    if name and "PriorityClass" in world.complete and name not in world.names("PriorityClass"):
        yield Reason(Verdict.NEVER, f"there is no PriorityClass {name}")
