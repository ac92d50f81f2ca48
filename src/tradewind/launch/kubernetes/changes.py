"""The smallest changes with which a run that can never fit would: each is tried on the same cluster."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from tradewind.launch.kubernetes.allowed import unsaid
from tradewind.launch.kubernetes.ask import Ask, counted, listed
from tradewind.launch.kubernetes.situation import Situation, Verdict
from tradewind.launch.why.amounts import room, shown
from tradewind.launch.why.cause import plain
from tradewind.launch.why.dump import World
from tradewind.launch.why.fit import Bar
from tradewind.launch.why.kinds import Node
from tradewind.launch.why.pods import Amount, Container, Resources, Toleration
from tradewind.launch.why.view import some
from tradewind.record import replace

_SHOWN = 4
_PAIRS = 24
"""Pairs that are tried when no change alone is enough."""


def _same_ask(ask: Ask) -> Ask:
    return ask


def _same_world(world: World) -> World:
    return world


class Change(NamedTuple):
    """What to do, and what the run and the cluster are then."""

    text: str
    ask: Callable[[Ask], Ask] = _same_ask
    world: Callable[[World], World] = _same_world


def changes(found: Situation) -> tuple[str, ...]:
    """Changes that each make it fit, now or later; without one, the first two that do together."""
    known = list(candidates(found))
    alone = [each.text for each in known if _helps(found, each)]
    if alone:
        return tuple(plain(text) for text in alone[:_SHOWN])
    pairs = ((first, second) for first in known for second in candidates(_after(found, first)))
    both = next((pair for pair in itertools.islice(pairs, _PAIRS) if _helps(found, *pair)), ())
    return (plain(", and ".join(each.text for each in both)),) if both else ()


def _after(found: Situation, *changed: Change) -> Situation:
    ask, world = found.ask, found.world
    for each in changed:
        ask, world = each.ask(ask), each.world(world)
    return Situation(ask, world, found.rooms)


def _helps(found: Situation, *changed: Change) -> bool:
    return _after(found, *changed).verdict() is not Verdict.NEVER


def candidates(found: Situation) -> Iterator[Change]:
    """What could be changed, the smallest first."""
    yield from _spread(found)
    yield from _tolerate(found)
    yield from _other_devices(found)
    yield from _other_nodes(found)
    yield from _looser(found)
    yield from _open(found)
    yield from _fewer_hosts(found)
    yield from _quota(found)


def _spread(found: Situation) -> Iterator[Change]:
    """The same workers on more hosts: as few more as it takes, else as few as have a node that is large enough."""
    ask = found.ask
    smaller = [w for w in range(ask.workers - 1, 0, -1) if ask.workers * ask.hosts % w == 0]
    options = [_onto_more_hosts(ask, workers) for workers in smaller]
    enough = next((each for each in options if _helps(found, each)), None)
    if enough is None and not found.seats.seating.large:
        enough = next((each for each in options if _after(found, each).seats.seating.large), None)
    yield from [enough] if enough else []


def _onto_more_hosts(ask: Ask, workers: int) -> Change:
    less = scaled(ask, workers)
    what = listed({name: value for name, value in less.need.items() if value != ask.need.get(name)})
    flags = f"--hosts {less.hosts}" + (f" --gpus {less.need[less.device]:g}" if less.device else "")
    return Change(
        f"use {counted(less.hosts)} with {counted(workers, 'worker')} on each ({what}): {flags}",
        functools.partial(scaled, workers=workers),
    )


def scaled(ask: Ask, workers: int) -> Ask:
    """The same workers, fewer of them on each host; what hosts ask for beside their workers stays."""
    share = workers / ask.workers
    theirs = {"cpu", "memory", ask.device}

    def part(amounts: Mapping[str, Amount]) -> dict[str, Amount]:
        return {n: v * share if n in theirs else v for n, v in room(amounts).items()}

    def smaller(container: Container) -> Container:
        asked = container.resources
        return replace(
            container, resources=Resources(requests=part(asked.requests), limits=part(asked.limits))
        )

    spec = ask.pod.spec
    less = ask.with_spec(
        containers=tuple(map(smaller, spec.containers)),
        init_containers=tuple(map(smaller, spec.init_containers)),
    )
    return less._replace(hosts=ask.hosts * ask.workers // workers, workers=workers)


def _tolerate(found: Situation) -> Iterator[Change]:
    """One taint, or all of those that keep it off nodes that would do."""
    seats = [seat for seat in found.seats.seating.large if Bar.TAINT in seat.bars]
    keys = Counter(t.key for seat in seats for t in seat.taints if "node.kubernetes.io/" not in t.key)
    groups = [(key,) for key, _ in keys.most_common(4)] + ([tuple(keys)] if len(keys) > 1 else [])
    for group in groups:
        more = tuple(Toleration(key=key, operator="Exists") for key in group)
        example = next(seat.name for seat in seats if any(t.key in group for t in seat.taints))
        text = f"tolerate the taint {some(list(group))} (placement.tolerations), as on {example}"
        yield Change(text, functools.partial(_tolerating, more=more))


def _tolerating(ask: Ask, more: tuple[Toleration, ...]) -> Ask:
    return ask.with_spec(tolerations=(*ask.pod.spec.tolerations, *more))


def _other_devices(found: Situation) -> Iterator[Change]:
    """As many of another kind that nodes have from the same vendor: whole GPUs, or slices of another size."""
    device = found.ask.device
    vendor = f"{device.partition('/')[0]}/"
    known = {name for seat in found.seats.seating.seats for name, value in seat.size.items() if value > 0}
    for other in sorted(name for name in known - {device} if device and name.startswith(vendor)):
        yield Change(f"ask for {other} instead of {device}", functools.partial(_with_device, other=other))


def _with_device(ask: Ask, other: str) -> Ask:
    """The same with devices of another name."""

    def named(amounts: Mapping[str, Amount]) -> dict[str, Amount]:
        return {other if name == ask.device else name: value for name, value in amounts.items()}

    containers = tuple(
        replace(
            each,
            resources=Resources(requests=named(each.resources.requests), limits=named(each.resources.limits)),
        )
        for each in ask.pod.spec.containers
    )
    return ask.with_spec(containers=containers)._replace(device=other)


def _other_nodes(found: Situation) -> Iterator[Change]:
    """Without one of the labels that nodes must have, or without all of them."""
    wanted = found.ask.pod.spec.node_selector
    groups = [(key,) for key in wanted] + ([tuple(wanted)] if len(wanted) > 1 else [])
    for group in groups:
        left = {key: value for key, value in wanted.items() if key not in group}
        named = ", ".join(f"{key}={wanted[key]}" for key in group)
        others = sorted(
            {
                f"{key}={value}"
                for seat in found.seats.seating.seats
                for key in group
                if (value := seat.node.metadata.labels.get(key)) and value != wanted[key]
            }
        )
        text = f"choose other nodes than {named}" + (f", such as {some(others)}" if others else "")
        yield Change(text, functools.partial(Ask.with_spec, node_selector=left))


def _looser(found: Situation) -> Iterator[Change]:
    if key := found.ask.topology:
        yield Change(f"do without one {key} for all hosts", lambda ask: ask._replace(topology=None))


def _open(found: Situation) -> Iterator[Change]:
    """Nodes that are cordoned, or not ready, taking pods again."""
    for bar, text in ((Bar.CORDONED, "uncordon"), (Bar.LOST, "bring back")):
        closed = [seat.name for seat in found.seats.seating.large if bar in seat.bars]
        if closed:
            yield Change(f"{text} {some(closed)}", world=functools.partial(_opened, names=frozenset(closed)))


def _opened(world: World, names: frozenset[str]) -> World:
    """The nodes of these names without what closes them."""

    def opened(node: Node) -> Node:
        if node.metadata.name not in names:
            return node
        taints = tuple(t for t in node.spec.taints if "node.kubernetes.io/" not in t.key)
        return replace(node, spec=replace(node.spec, unschedulable=False, taints=taints))

    return world.changed("Node", [opened(node) for node in world.all(Node)])


def _fewer_hosts(found: Situation) -> Iterator[Change]:
    """As many hosts as there could ever be room and quota for."""
    hosts = found.ask.hosts
    limits = [int(each.hard * hosts / each.asks + 1e-6) for each in found.quotas if each.asks]
    most = min([found.seats.ever, hosts - 1, *limits])
    if most >= 1:
        yield Change(f"use {counted(most)}: --hosts {most}", lambda ask: ask._replace(hosts=most))


def _quota(found: Situation) -> Iterator[Change]:
    """Quotas as large as the run needs them, and pods that say what a quota counts."""
    short = [each for each in found.quotas if not each.may_fit]
    if short:
        raised = ", ".join(
            f"{each.of}: {each.resource} from {shown(each.resource, each.hard)} to {shown(each.resource, each.asks)}"
            for each in short
        )
        yield Change(f"have the quota raised ({raised})", world=_without_quotas)
    if names := unsaid(found.ask, found.world):
        yield Change(
            f"state {some(names)}: resources.cpus, memory_gib, or a LimitRange for limits",
            world=_without_quotas,
        )


def _without_quotas(world: World) -> World:
    return world.changed("ResourceQuota", [])
