"""One run as it is asked of a cluster: everything that its manifests are made from, and nothing else."""

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from tradewind.errors import SpecError
from tradewind.launch.kubernetes.code import Code
from tradewind.launch.kubernetes.context import Context, is_below
from tradewind.spec import Placement, RunSpec
from tradewind.spec.placement import over

Gang = Literal["none", "native", "kueue", "barrier"]
MIN_GRACE_S = 60
_NAME_ROOM = 32


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster has beyond a plain Kubernetes."""

    native_gangs: bool = False
    """It serves `scheduling.k8s.io/v1beta1` PodGroups."""
    kueue: bool = False
    gateway: bool = False
    """It serves the Gateway API's HTTPRoute."""
    pod_monitor: bool = False
    """It serves the Prometheus operator's PodMonitor."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A run, worked out for one cluster."""

    run: str
    name: str
    spec: RunSpec
    stored: Mapping[str, Any]
    """The spec as the agents read it: with the script's folder and import paths in the snapshot."""
    code: Code
    context: Context
    placement: Placement
    image: str
    gang: Gang
    grace_s: int
    created_s: float = 0.0
    """When the run was asked for; 0 for manifests that are applied by somebody else at a time of their own."""

    @property
    def object_name(self) -> str:
        """Name of the run's Job, Service and the like, and of its hosts, which end with their index."""
        return object_name(self.name, self.run)


def make_request(
    *,
    run: str,
    name: str,
    spec: RunSpec,
    stored: Mapping[str, Any],
    code: Code,
    context: Context,
    capabilities: Capabilities | None,
    checkpoint_s: float | None = None,
    created_s: float = 0.0,
) -> Request:
    """Work out a run for a cluster with these `capabilities`; None when the cluster cannot be asked.

    `checkpoint_s` is how long earlier runs took to write a checkpoint. Raises SpecError without an image,
    for a queue on a cluster without Kueue, and for a checkpoint folder that pods do not have.
    """
    where = spec.checkpoint_dir
    if where and not any(is_below(where, volume.path) for volume in context.volumes):
        raise SpecError(
            f"checkpoint_dir: {where} is on none of the context's volumes; give a folder under one's path"
        )
    placement = over(spec.placement, context.placement)
    if placement.image is None:
        raise SpecError(
            "placement.image: no image is named; give --image, or `placement: {image: ...}` in the context. "
            "It needs torch and tradewind; deploy/kubernetes/Dockerfile makes one"
        )
    return Request(
        run=run,
        name=name,
        spec=spec,
        stored=stored,
        code=code,
        context=context,
        placement=placement,
        image=placement.image,
        gang=gang_of(spec.hosts, placement, context, capabilities),
        grace_s=grace_s(checkpoint_s),
        created_s=created_s,
    )


def for_pods(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored spec as pods read it: without the folder of the machine it was submitted from."""
    return {key: value for key, value in stored.items() if key != "root"}


def gang_of(hosts: int, placement: Placement, context: Context, capabilities: Capabilities | None) -> Gang:
    """By what means all hosts start or none."""
    known = capabilities or Capabilities(
        native_gangs=context.gang == "native", kueue=bool(placement.queue) or context.gang == "kueue"
    )
    if placement.queue and not known.kueue:
        raise SpecError(
            f"placement.queue: {placement.queue} is named and the cluster has no Kueue (kueue.x-k8s.io); "
            "install it, or name no queue"
        )
    if context.gang == "kueue" and not placement.queue:
        raise SpecError("context.gang: kueue needs a queue; name one in `placement: {queue: ...}`")
    if context.gang == "native" and not known.native_gangs:
        raise SpecError(
            "context.gang: native, and the cluster does not serve scheduling.k8s.io/v1beta1 PodGroups; "
            "switch them on (Kubernetes 1.37, feature gate GenericWorkload), or write `gang: auto`"
        )
    if hosts == 1:
        return "none"
    if context.gang != "auto":
        return context.gang
    if known.native_gangs:
        return "native"
    return "kueue" if placement.queue else "barrier"


def grace_s(checkpoint_s: float | None) -> int:
    """Seconds between SIGTERM and SIGKILL: three times the slowest checkpoint so far, and time to end a step."""
    return max(MIN_GRACE_S, math.ceil(3 * (checkpoint_s or 0.0)) + 30)


def object_name(name: str, run: str) -> str:
    """A DNS label that begins with the run's name and ends with its id.

    Whatever a controller puts behind it, it must stay a host name: at most 63 characters.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_NAME_ROOM].strip("-")
    if not slug or not slug[0].isalpha():
        slug = f"run-{slug}".strip("-")
    return f"{slug}-{run}"


def gib(amount: float) -> str:
    """A quantity of memory, exact to the MiB."""
    return f"{max(1, round(amount * 1024))}Mi"


def cpus(amount: float) -> str:
    """A quantity of CPUs, exact to the thousandth."""
    return f"{max(1, round(amount * 1000))}m"


def host_resources(request: Request) -> dict[str, str]:
    """What each host is asked for: its workers' share, and what the placement adds."""
    need, workers = request.spec.resources, request.spec.workers_per_host
    found = {}
    if need.cpus is not None:
        found["cpu"] = cpus(need.cpus * workers)
    if need.memory_gib is not None:
        found["memory"] = gib(need.memory_gib * workers)
    if need.gpus:
        vendor = request.context.gpu_resource.partition("/")[0]
        resource = f"{vendor}/mig-{need.mig}" if need.mig else request.context.gpu_resource
        found[resource] = str(need.gpus * workers)
    return found | {name: str(count) for name, count in request.placement.host_resources.items()}


def shared_memory(request: Request) -> str | None:
    """How large /dev/shm may become: as asked for, else half of the memory; None bounds it by the pod's."""
    need, workers = request.spec.resources, request.spec.workers_per_host
    if need.shm_gib is not None:
        return gib(need.shm_gib * workers)
    return None if need.memory_gib is None else gib(need.memory_gib * workers / 2)
