"""Which node could hold a pod and what keeps it off: the scheduler's filters, worked out from the objects."""

import enum
import functools
from collections.abc import Iterable, Iterator

from tradewind.launch.why.amounts import Room, add, lacking, need_of, room
from tradewind.launch.why.dump import World
from tradewind.launch.why.kinds import Node, Taint
from tradewind.launch.why.pods import LabelSelector, NodeTerm, Pod, PodSpec, PodTerm, Requirement, Toleration
from tradewind.record import Record


class Bar(enum.Enum):
    """What keeps a pod off a node that is large enough for it."""

    CORDONED = "cordoned"
    LOST = "lost"
    TAINT = "taint"


_CORDON = "node.kubernetes.io/unschedulable"
_LOST = (
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.cloudprovider.kubernetes.io/shutdown",
)


class Seat:
    """One node as one pod sees it."""

    def __init__(self, node: Node, spec: PodSpec, size: Room, free: Room) -> None:
        self.node, self.size, self.free = node, size, free
        self.name = node.metadata.name
        self.by_selector = all(node.metadata.labels.get(k) == v for k, v in spec.node_selector.items())
        self.by_affinity = admits_affinity(node, spec)
        self.taints = tuple(untolerated(node.spec.taints, spec.tolerations))
        self.bars = frozenset(bars(node, self.taints, spec.tolerations))

    @property
    def chosen(self) -> bool:
        """Whether the pod's own selector and affinity let it go there."""
        return self.by_selector and self.by_affinity

    def holds(self, need: Room) -> bool:
        """Whether the pod would fit if the node were empty."""
        return not lacking(need, self.size)

    def has_room(self, need: Room) -> bool:
        return not lacking(need, self.free)


class Rooms(Record):
    """Of every node by name: what it has for jobs at all, and what is free of that now."""

    size: dict[str, Room]
    free: dict[str, Room]


class Seating:
    """Every node of the cluster as one pod sees it; `rooms` of the same world spare adding them up again."""

    def __init__(self, world: World, pod: Pod, rooms: Rooms | None = None) -> None:
        self.world, self.pod, self.need = world, pod, need_of(pod.spec)
        rooms = rooms or rooms_of(world)
        size, free = rooms.size, rooms.free
        self.seats = [
            Seat(node, pod.spec, size[node.metadata.name], free[node.metadata.name])
            for node in world.all(Node)
        ]

    @functools.cached_property
    def chosen(self) -> list[Seat]:
        """Nodes that the pod's own selector and affinity name."""
        return [seat for seat in self.seats if seat.chosen]

    @functools.cached_property
    def large(self) -> list[Seat]:
        """Those of them that could hold the pod if they were empty."""
        return [seat for seat in self.chosen if seat.holds(self.need)]

    @functools.cached_property
    def open(self) -> list[Seat]:
        """Those of them that take new pods of its kind."""
        return [seat for seat in self.large if not seat.bars]

    @functools.cached_property
    def roomy(self) -> list[Seat]:
        """Those of them that have room now."""
        return [seat for seat in self.open if seat.has_room(self.need)]


def rooms_of(world: World) -> Rooms:
    """What the nodes have and what the pods on them leave of it; pods of DaemonSets and of the node itself stay."""
    size = {node.metadata.name: room(node.status.allocatable) for node in world.all(Node)}
    free = {name: dict(amounts) for name, amounts in size.items()}
    for pod in holding(world):
        if pod.spec.node_name in free:
            need = need_of(pod.spec)
            add(free[pod.spec.node_name], need, sign=-1.0)
            if stays(pod):
                add(size[pod.spec.node_name], need, sign=-1.0)
    return Rooms(size=size, free=free)


def holding(world: World) -> Iterator[Pod]:
    """The pods that hold room on a node."""
    for pod in world.all(Pod):
        if pod.spec.node_name and pod.status.phase not in ("Succeeded", "Failed"):
            yield pod


def stays(pod: Pod) -> bool:
    """Whether a pod is part of its node: it does not end when everybody's work is done."""
    return any(owner.kind in ("DaemonSet", "Node") for owner in pod.metadata.owner_references)


def seats_for(seats: Iterable[Seat], need: Room, empty: bool = False) -> int:
    """How many pods of one kind these nodes take."""
    return sum(times(need, seat.size if empty else seat.free) for seat in seats)


def times(need: Room, have: Room) -> int:
    """How often a need goes into what there is."""
    return max(0, min(int(have.get(name, 0.0) / value + 1e-6) for name, value in need.items()))


def bars(node: Node, taints: Iterable[Taint], tolerations: tuple[Toleration, ...]) -> Iterable[Bar]:
    """What keeps pods with these tolerations off a node, whatever its size."""
    keys = {taint.key for taint in taints}
    cordon = Taint(key=_CORDON, effect="NoSchedule")
    if _CORDON in keys or (node.spec.unschedulable and not any(tolerates(t, cordon) for t in tolerations)):
        yield Bar.CORDONED
    if keys & set(_LOST):
        yield Bar.LOST
    if keys - {_CORDON, *_LOST}:
        yield Bar.TAINT


def untolerated(taints: Iterable[Taint], tolerations: tuple[Toleration, ...]) -> Iterable[Taint]:
    """The taints that keep new pods with these tolerations off."""
    for taint in taints:
        if taint.effect != "PreferNoSchedule" and not any(tolerates(each, taint) for each in tolerations):
            yield taint


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect):
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    return (toleration.key, toleration.value) == (taint.key, taint.value)


def admits_affinity(node: Node, spec: PodSpec) -> bool:
    """Whether a node fulfils the required node affinity: any one of its terms."""
    required = spec.affinity.node_affinity.required
    return required is None or any(_admits(node, term) for term in required.node_selector_terms)


def _admits(node: Node, term: NodeTerm) -> bool:
    if not (term.match_expressions or term.match_fields):
        return False
    fields = {"metadata.name": node.metadata.name}
    return all(matches(each, node.metadata.labels) for each in term.match_expressions) and all(
        matches(each, fields) for each in term.match_fields
    )


def matches(requirement: Requirement, labels: dict[str, str]) -> bool:
    """One expression of a selector, with the meaning Kubernetes gives it."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compares(requirement, value)
    return False


def _compares(requirement: Requirement, value: str | None) -> bool:
    try:
        found, bound = int(value or ""), int("".join(requirement.values))
    except ValueError:
        return False
    return found > bound if requirement.operator == "Gt" else found < bound


def selects(selector: LabelSelector | None, labels: dict[str, str]) -> bool:
    """Whether a label selector matches; none at all matches nothing."""
    if selector is None:
        return False
    return all(labels.get(k) == v for k, v in selector.match_labels.items()) and all(
        matches(each, labels) for each in selector.match_expressions
    )


def kept_apart(seating: Seating) -> list[str]:
    """The roomy nodes that required pod affinity or anti-affinity rules out."""
    spec, near = seating.pod.spec.affinity, _pods_near(seating.world)
    apart = [(term, _reached(term, seating.pod, near)) for term in spec.pod_anti_affinity.required]
    together = [
        (term, _reached(term, seating.pod, near))
        for term in spec.pod_affinity.required
        if not _first_of_its_kind(term, seating, near)
    ]
    shunned = unwelcome(seating.pod, near)
    return [
        seat.name
        for seat in seating.roomy
        if any(_domain(seat, term.topology_key) in domains for term, domains in apart)
        or any(_domain(seat, term.topology_key) not in domains for term, domains in together)
        or any(_domain(seat, key) == value for key, value in shunned)
    ]


Placed = list[tuple[Pod, dict[str, str]]]


def _pods_near(world: World) -> Placed:
    """Pods on nodes with those nodes' labels."""
    labels = {node.metadata.name: node.metadata.labels for node in world.all(Node)}
    return [(pod, labels[pod.spec.node_name]) for pod in holding(world) if pod.spec.node_name in labels]


def _domain(seat: Seat, key: str) -> str | None:
    return seat.node.metadata.labels.get(key)


def _reached(term: PodTerm, pod: Pod, near: Placed) -> set[str]:
    """The domains of a term's topology in which a pod runs that it selects."""
    places = term.namespaces or (pod.metadata.namespace,)
    return {
        labels[term.topology_key]
        for other, labels in near
        if term.topology_key in labels
        and other.metadata.namespace in places
        and selects(term.label_selector, other.metadata.labels)
    }


def _first_of_its_kind(term: PodTerm, seating: Seating, near: Placed) -> bool:
    """A pod that its own affinity selects may be the first where no other is placed."""
    others = any(selects(term.label_selector, pod.metadata.labels) for pod, _ in near)
    return not others and selects(term.label_selector, seating.pod.metadata.labels)


def unwelcome(pod: Pod, near: Placed) -> set[tuple[str, str]]:
    """The domains, as label and value, from which pods that are there keep this one away."""
    mine = pod.metadata
    return {
        (term.topology_key, labels[term.topology_key])
        for other, labels in near
        for term in other.spec.affinity.pod_anti_affinity.required
        if term.topology_key in labels
        and mine.namespace in (term.namespaces or (other.metadata.namespace,))
        and selects(term.label_selector, mine.labels)
    }
