"""Where on a cluster the hosts of a run may lie, and what they need there besides CPUs, memory and GPUs."""

from typing import Annotated, Literal, TypeVar

import msgspec

from tradewind.spec.base import Spec

Count = Annotated[int, msgspec.Meta(ge=0)]
T = TypeVar("T")


class Toleration(Spec, frozen=True, kw_only=True):
    """A taint that hosts of the run put up with; without `key`, every taint."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    seconds: Count | None = None
    """How long a host stays after such a NoExecute taint appeared; for ever when None."""


class Placement(Spec, frozen=True, kw_only=True):
    """What a cluster is told about every host of a run; a launcher's context holds the defaults."""

    image: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    priority_class: str | None = None
    queue: str | None = None
    """Kueue's LocalQueue that admits the run."""
    queue_priority: str | None = None
    """Kueue's WorkloadPriorityClass."""
    service_account: str | None = None
    host_resources: dict[str, Count] = msgspec.field(default_factory=dict)
    """Further resources of each host by the cluster's name, such as `rdma/hca: 1`."""
    claims: tuple[str, ...] = ()
    """ResourceClaimTemplates from which each host gets a device (dynamic resource allocation)."""
    topology: str | None = None
    """Node label whose value all hosts of the run must share, such as a rack's or a block's."""


def over(run: Placement, defaults: Placement) -> Placement:
    """What holds for a run: its own words first; mappings and lists are joined with the defaults'."""
    return Placement(
        image=run.image or defaults.image,
        image_pull_secrets=joined(defaults.image_pull_secrets, run.image_pull_secrets),
        node_selector=defaults.node_selector | run.node_selector,
        tolerations=joined(defaults.tolerations, run.tolerations),
        priority_class=run.priority_class or defaults.priority_class,
        queue=run.queue or defaults.queue,
        queue_priority=run.queue_priority or defaults.queue_priority,
        service_account=run.service_account or defaults.service_account,
        host_resources=defaults.host_resources | run.host_resources,
        claims=joined(defaults.claims, run.claims),
        topology=run.topology or defaults.topology,
    )


def joined(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    """Both, each item once."""
    return (*first, *(item for item in second if item not in first))
