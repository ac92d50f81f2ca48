"""What quotas let a run have: ResourceQuotas of its namespace, and Kueue's queue."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from tradewind.launch.kubernetes.ask import Ask
from tradewind.launch.why.amounts import EPSILON, amount, room, shown
from tradewind.launch.why.creation import charged
from tradewind.launch.why.dump import World
from tradewind.launch.why.kinds import (
    ClusterQueue,
    LimitRange,
    LocalQueue,
    QueueResource,
    Quota,
    ResourceFlavor,
)


class Allowance(NamedTuple):
    """One resource of one quota: what the run asks for, what the quota has in all, what is left of it."""

    of: str
    resource: str
    asks: float
    hard: float
    left: float

    @property
    def fits(self) -> bool:
        return self.asks <= self.left + EPSILON * max(1.0, self.asks)

    @property
    def may_fit(self) -> bool:
        """Whether it would fit if nothing else were counted."""
        return self.asks <= self.hard + EPSILON * max(1.0, self.asks)

    def __str__(self) -> str:
        return (
            f"{self.of} allows {shown(self.resource, self.hard)} {self.resource}, "
            f"{shown(self.resource, max(0.0, self.left))} left, asked for {shown(self.resource, self.asks)}"
        )


def quotas(ask: Ask, world: World) -> list[Allowance]:
    """The run beside every resource that a quota of its namespace counts."""
    asks, found = charged(ask.pod.spec), []
    for quota in plain_quotas(ask, world):
        hard, used = room(quota.status.hard or quota.spec.hard), room(quota.status.used)
        for name in asks.keys() & hard.keys():
            left = hard[name] - used.get(name, 0.0)
            found.append(
                Allowance(f"quota {quota.metadata.name}", name, asks[name] * ask.hosts, hard[name], left)
            )
    return sorted(found)


def plain_quotas(ask: Ask, world: World) -> Iterator[Quota]:
    """The quotas that count every pod; which pods a scoped one counts, the API server knows best."""
    for quota in world.all(Quota, ask.namespace):
        if not (quota.spec.scopes or quota.spec.scope_selector):
            yield quota


def unsaid(ask: Ask, world: World) -> list[str]:
    """Resources that a quota counts and the pods do not state: the API server refuses such pods.

    A LimitRange states them in their place.
    """
    limits, found = world.all(LimitRange, ask.namespace), set()
    given = {
        "limits": {name for each in limits for part in each.spec.limits for name in part.default},
        "requests": {
            name
            for each in limits
            for part in each.spec.limits
            for name in (*part.default, *part.default_request)
        },
    }
    for quota in plain_quotas(ask, world):
        for counted in quota.status.hard or quota.spec.hard:
            kind, _, name = counted.rpartition(".")
            if name not in ("cpu", "memory") or kind not in ("", "limits", "requests"):
                continue
            kind = kind or "requests"
            if name not in given[kind] and not all(_states(ask, kind, name)):
                found.add(f"{kind}.{name} (quota {quota.metadata.name})")
    return sorted(found)


def _states(ask: Ask, kind: str, name: str) -> Iterator[bool]:
    for container in (*ask.pod.spec.containers, *ask.pod.spec.init_containers):
        said = set(container.resources.limits)
        yield name in (said if kind == "limits" else said | set(container.resources.requests))


class Queue(NamedTuple):
    """What is known of the queue that a run goes through."""

    problem: str = ""
    """Why it admits nothing for ever."""
    stopped: str = ""
    """Why it admits nothing for now."""
    cluster_queue: ClusterQueue | None = None


def queue_of(ask: Ask, world: World) -> Queue:
    """The run's queue; says nothing where the user may not read queues."""
    if ask.queue is None or "LocalQueue" not in world.complete:
        return Queue()
    local = next((q for q in world.all(LocalQueue, ask.namespace) if q.metadata.name == ask.queue), None)
    if local is None:
        known = ", ".join(sorted(world.names("LocalQueue", ask.namespace))) or "none"
        return Queue(
            problem=f"there is no LocalQueue {ask.queue} in namespace {ask.namespace}; there is {known}"
        )
    if "ClusterQueue" not in world.complete:
        return Queue()
    name = local.spec.cluster_queue
    queue = next((q for q in world.all(ClusterQueue) if q.metadata.name == name), None)
    if queue is None:
        return Queue(problem=f"LocalQueue {ask.queue} belongs to ClusterQueue {name}, which is not there")
    for each, policy in ((f"LocalQueue {ask.queue}", local.spec), (f"ClusterQueue {name}", queue.spec)):
        if policy.stop_policy not in ("", "None"):
            return Queue(stopped=f"{each} is stopped (stopPolicy: {policy.stop_policy})", cluster_queue=queue)
    return Queue(cluster_queue=queue)


Flavors = dict[str, list[Allowance]]
"""Name of a flavor -> the run beside its resources."""


def flavors(ask: Ask, queue: ClusterQueue) -> list[Flavors]:
    """For every resource group of the queue that the run needs: the run beside each of its flavors.

    All hosts of a run are of one flavor of a group.
    """
    reserved = {
        (use.name, each.name): amount(each.total)
        for use in queue.status.flavors_reservation
        for each in use.resources
    }
    need, found = ask.need, []
    for group in queue.spec.resource_groups:
        mine: Flavors = {}
        for flavor in group.flavors:
            for each in flavor.resources:
                if each.name in need:
                    hard = amount(each.nominal_quota) + _may_borrow(queue, each)
                    left = hard - reserved.get((flavor.name, each.name), 0.0)
                    what = f"queue {queue.metadata.name}, flavor {flavor.name}"
                    allowance = Allowance(what, each.name, need[each.name] * ask.hosts, hard, left)
                    mine.setdefault(flavor.name, []).append(allowance)
        found += [mine] if mine else []
    return found


def _may_borrow(queue: ClusterQueue, resource: QueueResource) -> float:
    """What the cohort may lend; where no limit says how much, there may be no end of it."""
    if not queue.cohort:
        return 0.0
    return math.inf if resource.borrowing_limit is None else amount(resource.borrowing_limit)


def uncovered(ask: Ask, queue: ClusterQueue) -> list[str]:
    """Resources of the run that its queue knows nothing of; Kueue admits no such workload."""
    covered = {
        each.name
        for group in queue.spec.resource_groups
        for flavor in group.flavors
        for each in flavor.resources
    }
    return sorted(name for name in ask.need if name not in covered and name != "pods")


def labels_of(flavor: str, world: World) -> dict[str, str]:
    """The node labels that a flavor stands for."""
    found = next((f for f in world.all(ResourceFlavor) if f.metadata.name == flavor), None)
    return found.spec.node_labels if found else {}
