"""Why no node takes a pod: the filters one after the other, and then the arithmetic of what is free."""

import re
from collections import Counter

from tradewind.launch.why.amounts import Room, lacking, main_resource, need_of, room, shown, total
from tradewind.launch.why.cause import Cause, Code, Evidence, Weight, fact
from tradewind.launch.why.fit import Bar, Seat, Seating, holding, kept_apart
from tradewind.launch.why.messages import said_by_scheduler, scheduler_evidence
from tradewind.launch.why.pods import Pod
from tradewind.launch.why.view import View, some

_NO_NODES = re.compile(r"no nodes available|PodGroupPostFilter plugins: not found")
"""What the scheduler says without nodes: of a gang, as of Kubernetes 1.37, only that it failed (SchedulerError)."""


def no_nodes(view: View, seating: Seating) -> Cause | None:
    """There is no node at all, by the objects or by what the scheduler says."""
    said = _NO_NODES.search(said_by_scheduler(view))
    if seating.seats or not (said or "Node" in view.world.complete):
        return None
    return Cause(
        code=Code.NO_CAPACITY,
        text="The cluster has no nodes, so none of the pods can be placed.",
        remedy="Add nodes, or see why they do not register (kubectl get nodes); an autoscaler at zero takes minutes.",
        weight=Weight.BLOCKS,
        evidence=(fact("nodes", "count", 0), *scheduler_evidence(view)),
    )


def node_selector(view: View, seating: Seating) -> Cause | None:
    """The node selector names labels that no node has."""
    wanted = seating.pod.spec.node_selector
    if not wanted or any(seat.by_selector for seat in seating.seats):
        return None
    near = [f"{key}={value}" for key, value in wanted.items() if not _has_label(seating, key, value)]
    keys = [pair.split("=")[0] for pair in near] or list(wanted)
    known = [f"{key} is {some(_values(seating, key)) or 'on no node'}" for key in keys]
    return Cause(
        code=Code.NODE_SELECTOR,
        text=f"No node has {' and '.join(near) or 'all of these labels at once'}: {'; '.join(known)}.",
        remedy="Correct the node selector (kubectl get nodes --show-labels), or label the nodes that are meant.",
        weight=Weight.BLOCKS,
        evidence=(
            fact(seating.pod.ref, "spec.nodeSelector", _pairs(wanted)),
            fact("nodes", "metadata.labels", "; ".join(known)),
            *scheduler_evidence(view),
        ),
    )


def node_affinity(view: View, seating: Seating) -> Cause | None:
    """The required node affinity leaves no node, where the node selector alone would."""
    if seating.chosen or not any(seat.by_selector for seat in seating.seats):
        return None
    required = seating.pod.spec.affinity.node_affinity.required
    asked = [
        f"{each.key} {each.operator} {'|'.join(each.values)}".strip()
        for term in (required.node_selector_terms if required else ())
        for each in (*term.match_expressions, *term.match_fields)
    ]
    keys = [text.split()[0] for text in asked]
    known = [f"{key} is {some(_values(seating, key)) or 'on no node'}" for key in dict.fromkeys(keys)]
    return Cause(
        code=Code.AFFINITY,
        text=f"The required node affinity ({some(asked)}) is fulfilled by no node: {'; '.join(known)}.",
        remedy="Correct the affinity, or prefer (preferredDuringScheduling...) instead of requiring.",
        weight=Weight.BLOCKS,
        evidence=(
            fact(seating.pod.ref, "spec.affinity.nodeAffinity", some(asked)),
            fact("nodes", "metadata.labels", "; ".join(known)),
            *scheduler_evidence(view),
        ),
    )


def pod_affinity(view: View, seating: Seating) -> Cause | None:
    """Rules about other pods rule out every node that has room."""
    refused = kept_apart(seating)
    spec = seating.pod.spec
    strict = [
        each for each in spec.topology_spread_constraints if each.when_unsatisfiable != "ScheduleAnyway"
    ]
    spread = bool(strict) and "topology spread" in said_by_scheduler(view)
    if not seating.roomy or (len(refused) < len(seating.roomy) and not spread):
        return None
    names = [seat.name for seat in seating.roomy]
    rule = f"the spread over {strict[0].topology_key}" if spread else "the affinity to or from other pods"
    return Cause(
        code=Code.AFFINITY,
        text=f"{rule[0].upper()}{rule[1:]} rules out {'every node' if len(names) > 1 else 'the one node'} "
        f"that has room: {some(names)}.",
        remedy="Relax the rule (preferred instead of required, a wider topologyKey), or add nodes in other domains.",
        weight=Weight.BLOCKS,
        evidence=(
            fact(seating.pod.ref, "spec.affinity", rule),
            fact("nodes", "with room", some(names)),
            *scheduler_evidence(view),
        ),
    )


def never_fits(view: View, seating: Seating) -> Cause | None:
    """The pod is larger than every node that it may go to, even were they empty."""
    if not seating.chosen or seating.large:
        return None
    largest = _largest(seating.chosen)
    short = [
        name
        for name in seating.need
        if all(lacking({name: seating.need[name]}, s.size) for s in seating.chosen)
    ]
    short = short or [main_resource(seating.need)]
    asks = ", ".join(f"{shown(name, seating.need[name])} {name}" for name in short)
    has = ", ".join(f"{shown(name, largest.get(name, 0.0))} {name}" for name in short)
    elsewhere = [seat.name for seat in seating.seats if not seat.chosen and seat.holds(seating.need)]
    other = f" Nodes outside its selector are large enough: {some(elsewhere)}." if elsewhere else ""
    return Cause(
        code=Code.NEVER_FITS,
        text=f"Each pod asks for {asks}; the most that any of {len(seating.chosen)} eligible nodes has is {has}.{other}",
        remedy="Ask for less on each host and use more hosts, or add larger nodes; waiting does not help.",
        weight=Weight.BLOCKS,
        evidence=(
            fact(seating.pod.ref, "spec.containers[].resources", asks),
            *(_allocatable(seat, short) for seat in seating.chosen[:3]),
            *scheduler_evidence(view),
        ),
    )


_BARS = {
    Bar.CORDONED: (
        Code.CORDONED,
        "cordoned",
        "kubectl uncordon NODE once it is fit for work, or wait until whoever cordoned it is done.",
    ),
    Bar.LOST: (
        Code.NODE_LOST,
        "not ready",
        "Bring the node back (kubectl describe node NODE; is its kubelet running?), or remove it.",
    ),
    Bar.TAINT: (
        Code.TAINT,
        "tainted",
        "Add the toleration if the job may run there, or ask whoever tainted the node.",
    ),
}


def barred(view: View, seating: Seating, bar: Bar) -> Cause | None:
    """Nodes that would do are closed to the pod: cordoned, not ready, or tainted."""
    alone = [seat for seat in seating.large if seat.bars == {bar}]
    ready = [seat for seat in alone if seat.has_room(seating.need)]
    seats = ready or alone
    if not seats or seating.roomy:
        return None
    code, word, remedy = _BARS[bar]
    why = _taint_text(seats) if bar is Bar.TAINT else ""
    return Cause(
        code=code,
        text=f"{_count(seats)} large enough{' and free' if ready else ''}, but {word}{why}: {some([s.name for s in seats])}.",
        remedy=remedy,
        weight=_bar_weight(bar, seating, bool(ready)),
        evidence=(*(_bar_fact(seat, bar) for seat in seats[:3]), *scheduler_evidence(view)),
    )


def _bar_weight(bar: Bar, seating: Seating, ready: bool) -> float:
    """Closed nodes block; where open ones are merely busy, a taint is how it is meant to be."""
    if not seating.open:
        return Weight.CLOSED if ready else Weight.CLOSED - 0.01
    if not ready:
        return Weight.PAST
    return Weight.PARTLY if bar is Bar.TAINT else Weight.CLOSED


def busy(view: View, seating: Seating) -> Cause | None:
    """Nodes that would do are full: too little is free, or enough, but never on one node."""
    if not seating.open or seating.roomy:
        return None
    free = total(seat.free for seat in seating.open)
    short = lacking(seating.need, free)
    name = short[0] if short else _scarce(seating)
    best = max(seating.open, key=lambda seat: seat.free.get(name, 0.0))
    asks, best_free = shown(name, seating.need[name]), shown(name, max(0.0, best.free.get(name, 0.0)))
    waiting = f"{len(view.unplaced)} of {view.wanted} pods wait; each asks for {asks} {name}."
    code = Code.NO_CAPACITY if short else Code.FRAGMENTATION
    detail = f"{shown(name, max(0.0, free.get(name, 0.0)))} free over {len(seating.open)} nodes, at most {best_free} on one."
    return Cause(
        code=code,
        text=f"{waiting} {detail}{_holders(view, seating, name)}",
        remedy=_BUSY_REMEDY[code],
        weight=Weight.WAITS,
        evidence=(
            fact(seating.pod.ref, "spec.containers[].resources", f"{asks} {name}"),
            fact("nodes", f"free {name}", _free_by_node(seating.open, name)),
            *scheduler_evidence(view),
        ),
    )


_BUSY_REMEDY = {
    Code.NO_CAPACITY: "Wait for a run to end, ask for less, raise the priority, or add nodes.",
    Code.FRAGMENTATION: "Ask for fewer on each host and use more hosts, move or end a small job that breaks up a "
    "node, or have the scheduler pack (MostAllocated) instead of spread.",
}


def hidden(view: View, seating: Seating) -> Cause | None:
    """By the dump there is room, yet the scheduler saw none: pods of other namespaces are not in the dump."""
    said = said_by_scheduler(view)
    is_gang = view.group is not None and view.group.needs > 1
    if not seating.roomy or "Insufficient" not in said or is_gang or kept_apart(seating):
        return None
    return Cause(
        code=Code.NO_CAPACITY,
        text=f"The scheduler found no room ({said}), though the pods in this dump leave some: others are not in it.",
        remedy="Dump all namespaces (kubectl get -A ...) to see who holds the rest; wait, or ask for less.",
        weight=Weight.PARTLY,
        evidence=scheduler_evidence(view),
    )


def _holders(view: View, seating: Seating, name: str) -> str:
    """Who holds most of a resource on the nodes that matter."""
    on = {seat.name for seat in seating.open}
    held: Counter[str] = Counter()
    for pod in holding(view.world):
        if pod.spec.node_name in on:
            held[owner_of(pod)] += round(need_of(pod.spec).get(name, 0.0) * 1000)
    most = [f"{owner} ({shown(name, milli / 1000)})" for owner, milli in held.most_common(3) if milli]
    return f" Held by {', '.join(most)}." if most else ""


def owner_of(pod: Pod) -> str:
    """Who made a pod, such as `team/job/train`; the pod itself where nobody did."""
    owners = pod.metadata.owner_references
    name = f"{owners[0].kind.lower()}/{owners[0].name}" if owners else pod.metadata.name
    return f"{pod.metadata.namespace}/{name}"


def _scarce(seating: Seating) -> str:
    """The resource that most nodes lack."""
    votes = Counter(name for seat in seating.open for name in lacking(seating.need, seat.free))
    return votes.most_common(1)[0][0]


def _largest(seats: list[Seat]) -> Room:
    names = {name for seat in seats for name in seat.size}
    return {name: max(seat.size.get(name, 0.0) for seat in seats) for name in names}


def _allocatable(seat: Seat, names: list[str]) -> Evidence:
    size = room(seat.node.status.allocatable)
    has = ", ".join(f"{shown(name, size.get(name, 0.0))} {name}" for name in names)
    return fact(seat.node.ref, "status.allocatable", has)


def _bar_fact(seat: Seat, bar: Bar) -> Evidence:
    if bar is Bar.CORDONED:
        return fact(seat.node.ref, "spec.unschedulable", "true", _added(seat, "unschedulable"))
    if bar is Bar.LOST:
        ready = next((c for c in seat.node.status.conditions if c.type == "Ready"), None)
        value = f"{ready.status} {ready.reason}: {ready.message}" if ready else "not reported"
        return fact(
            seat.node.ref, "status.conditions[Ready]", value, ready.last_transition_time if ready else ""
        )
    taints = ", ".join(f"{taint.key}={taint.value}:{taint.effect}" for taint in seat.taints)
    return fact(seat.node.ref, "spec.taints", taints, seat.taints[0].time_added)


def _added(seat: Seat, ending: str) -> str:
    return next((taint.time_added for taint in seat.node.spec.taints if taint.key.endswith(ending)), "")


def _taint_text(seats: list[Seat]) -> str:
    taints = {
        f"{taint.key}{'=' + taint.value if taint.value else ''}" for seat in seats for taint in seat.taints
    }
    return f" ({some(sorted(taints))}), which the pod does not tolerate"


def _count(seats: list[Seat]) -> str:
    return "1 node is" if len(seats) == 1 else f"{len(seats)} nodes are"


def _free_by_node(seats: list[Seat], name: str) -> str:
    ordered = sorted(seats, key=lambda seat: -seat.free.get(name, 0.0))
    return some([f"{seat.name} {shown(name, max(0.0, seat.free.get(name, 0.0)))}" for seat in ordered], 8)


def _has_label(seating: Seating, key: str, value: str) -> bool:
    return any(seat.node.metadata.labels.get(key) == value for seat in seating.seats)


def _values(seating: Seating, key: str) -> list[str]:
    return sorted({value for seat in seating.seats if (value := seat.node.metadata.labels.get(key))})


def _pairs(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items())
