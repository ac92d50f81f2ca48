"""What a run asks of a cluster, in the form in which rules compare it with what is there."""

from typing import NamedTuple

from tradewind.launch.kubernetes.pod import pod_template
from tradewind.launch.kubernetes.request import Request, host_resources
from tradewind.launch.why.amounts import Room, need_of, shown
from tradewind.launch.why.pods import Affinity, Meta, Pod
from tradewind.launch.why.typed import convert
from tradewind.record import replace


class Ask(NamedTuple):
    """Hosts that are all alike, each of them a pod."""

    hosts: int
    pod: Pod
    workers: int = 1
    """Worker processes of each host."""
    device: str = ""
    """The resource by which its workers get their GPUs; empty without."""
    topology: str | None = None
    """Node label whose value all hosts must share."""
    queue: str | None = None
    """Kueue's LocalQueue."""
    claims: tuple[str, ...] = ()
    """ResourceClaimTemplates of each host."""

    @property
    def need(self) -> Room:
        """What the scheduler sets aside for one host."""
        return need_of(self.pod.spec)

    @property
    def namespace(self) -> str:
        return self.pod.metadata.namespace

    def with_spec(self, **fields: object) -> "Ask":
        """The same with other fields of the pod's spec."""
        spec = replace(self.pod.spec, **fields)
        return self._replace(pod=replace(self.pod, spec=spec))


def ask_of(request: Request, namespace: str) -> Ask:
    """What a request asks for; that its hosts lie together is `topology`, however its manifests say it."""
    template = pod_template(request, lambda index: f"{request.object_name}-{index}")
    pod = convert(template | {"kind": "Pod"}, Pod)
    spec = pod.spec
    if request.placement.topology:
        spec = replace(spec, affinity=Affinity(node_affinity=spec.affinity.node_affinity))
    metadata = Meta(name=request.object_name, namespace=namespace, labels=pod.metadata.labels)
    return Ask(
        hosts=request.spec.hosts,
        workers=request.spec.workers_per_host,
        pod=replace(pod, metadata=metadata, spec=spec),
        device=device(request),
        topology=request.placement.topology,
        queue=request.placement.queue,
        claims=request.placement.claims,
    )


def device(request: Request) -> str:
    """The name of the GPUs, or of the slices of them, that the run asks for."""
    asked = host_resources(request).keys() - request.placement.host_resources.keys() - {"cpu", "memory"}
    return min(asked, default="")


def amounts(need: Room, times: int = 1) -> dict[str, str]:
    """Resources as people read them; that each pod is one pod goes without saying."""
    return {name: shown(name, value * times) for name, value in need.items() if name != "pods"}


def listed(need: Room, times: int = 1) -> str:
    """The same in one line."""
    return ", ".join(f"{value} {name}" for name, value in amounts(need, times).items()) or "nothing"


def counted(number: int, what: str = "host") -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
