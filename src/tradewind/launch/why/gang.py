"""Pods that must be placed all at once, and cannot be."""

import re
from collections import defaultdict

from tradewind.launch.why.amounts import shown
from tradewind.launch.why.cause import Cause, Code, Evidence, Weight, fact
from tradewind.launch.why.fit import Seat, Seating, seats_for
from tradewind.launch.why.kinds import PodGroup
from tradewind.launch.why.messages import scheduler_evidence
from tradewind.launch.why.view import View, from_condition


def gang_incomplete(view: View, seating: Seating | None) -> Cause | None:
    """Some of the gang would fit now, but not as many as must be placed at once."""
    group = view.group
    if group is None or not (view.unplaced or view.missing):
        return None
    present = len(view.alive)
    if present < group.needs:
        return _too_few_pods(view, group, present)
    if seating is None:
        return _said_by_group(view, group)
    placed = present - len(view.unplaced)
    fits = placed + seats_for(seating.open, seating.need)
    if not seating.open or fits >= group.needs or fits == 0:
        return None
    ever = seats_for(seating.open, seating.need, empty=True)
    never = f" Even empty, these nodes hold {ever}." if ever < group.needs else ""
    return Cause(
        code=Code.GANG_INCOMPLETE,
        text=f"The gang needs {group.needs} pods placed at once; there is room for {fits}.{never}",
        remedy="Add nodes or use fewer hosts; waiting does not help." if never else _WAIT,
        weight=Weight.WAITS + 0.02,
        evidence=(
            _needs(group),
            fact("nodes", "room for pods of this gang", f"{fits} now, {ever} if empty"),
            *_conditions(group),
            *scheduler_evidence(view),
        ),
    )


_COUNT = re.compile(r"cannot be satisfied: (\d{1,6}) scheduled")
_WAIT = "Wait until enough is free at once, use fewer hosts, or raise the priority so that the gang preempts."


def gang_never_fits(view: View, seating: Seating) -> Cause | None:
    """The gang is larger than all of its nodes together, even were they empty."""
    group = view.group
    if group is None or not seating.open:
        return None
    ever = seats_for(seating.open, seating.need, empty=True)
    if ever >= group.needs:
        return None
    return Cause(
        code=Code.NEVER_FITS,
        text=f"The gang needs {group.needs} pods at once; all {len(seating.open)} nodes that take them hold {ever}.",
        remedy="Use fewer hosts, or add nodes; waiting does not help.",
        weight=Weight.PARTLY,
        evidence=(_needs(group), fact("nodes", "room if empty", ever)),
    )


def gang_scattered(view: View, seating: Seating) -> Cause | None:
    """There is room for the gang, but never within one domain of its topology constraint."""
    group = view.group
    keys = [each.key for each in group.spec.scheduling_constraints.topology] if group else []
    if group is None or not keys or not view.unplaced or seats_for(seating.roomy, seating.need) < group.needs:
        return None
    domains: dict[str, list[Seat]] = defaultdict(list)
    for seat in seating.roomy:
        domains[seat.node.metadata.labels.get(keys[0], "")].append(seat)
    room = {name: seats_for(seats, seating.need) for name, seats in domains.items() if name}
    if any(count >= group.needs for count in room.values()):
        return None
    listed = ", ".join(
        f"{name} {count}" for name, count in sorted(room.items(), key=lambda item: -item[1])[:6]
    )
    return Cause(
        code=Code.FRAGMENTATION,
        text=f"There is room for all {group.needs} pods, but never within one {keys[0]}: {listed or 'no node has it'}.",
        remedy="Wait until one domain has room, constrain to a wider level, or use fewer hosts.",
        weight=Weight.WAITS + 0.02,
        evidence=(
            fact(group.ref, "spec.schedulingConstraints.topology", keys[0]),
            fact("nodes", f"room by {keys[0]}", listed),
            *_conditions(group),
        ),
    )


def _said_by_group(view: View, group: PodGroup) -> Cause | None:
    """Without nodes in the dump: by the scheduler's own count, if it could place some and not all."""
    said = [
        c.message
        for c in (*group.status.conditions, *(c for p in view.unplaced for c in p.status.conditions))
    ]
    counts = [int(found[1]) for text in said if (found := _COUNT.search(text))]
    if not counts or max(counts) == 0:
        return None
    return Cause(
        code=Code.GANG_INCOMPLETE,
        text=f"The gang needs {group.needs} pods placed at once; the scheduler found room for {max(counts)}.",
        remedy=_WAIT,
        weight=Weight.WAITS + 0.02,
        evidence=(_needs(group), *_conditions(group), *scheduler_evidence(view)),
    )


def _too_few_pods(view: View, group: PodGroup, present: int) -> Cause | None:
    if present == 0:
        return None
    return Cause(
        code=Code.GANG_INCOMPLETE,
        text=f"The gang needs {group.needs} pods at once, and only {present} exist: the job makes {view.wanted}.",
        remedy="Set the gang's minCount to what the job makes, or find out why the other pods are not made.",
        weight=Weight.WAITS + 0.02,
        evidence=(_needs(group), fact(view.job.ref, "spec.parallelism", view.job.spec.parallelism)),
    )


def _needs(group: PodGroup) -> Evidence:
    return fact(group.ref, "spec.schedulingPolicy.gang.minCount", shown("pods", group.needs))


def _conditions(group: PodGroup) -> tuple[Evidence, ...]:
    return tuple(from_condition(group.ref, each) for each in group.status.conditions if each.status != "True")
