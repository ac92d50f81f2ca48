"""What a cluster holds now, as the rules of `plan` and `why` read it: fetched side by side, only what they use.

Lists come from the API server's own memory (`resourceVersion=0`) and may be some moments old; what a rule must
not miss, a run's own objects, is read as it is now.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from tradewind.errors import ClusterError
from tradewind.launch.kubernetes.cluster import ONLY_METADATA, Cluster, Refused
from tradewind.launch.why import kinds
from tradewind.launch.why.dump import World
from tradewind.launch.why.pods import Object, Pod
from tradewind.launch.why.typed import decode_list

_PARALLEL = 6


class Source(NamedTuple):
    """Where objects of one kind are listed."""

    kind: str
    known: type[Object]
    versions: tuple[str, ...]
    """As the API calls them; the first one that is served is asked."""
    plural: str
    namespaced: bool = True
    selects: Mapping[str, str] = {}
    """`fieldSelector`, `labelSelector`."""
    only_metadata: bool = False
    fresh: bool = False
    """Read as it is now."""


def _core(kind: str, known: type[Object], plural: str, **how: bool | Mapping[str, str]) -> Source:
    return Source(kind, known, ("v1",), plural, **how)  # type: ignore[arg-type]


_KUEUE = ("kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1")
NODES = _core("Node", kinds.Node, "nodes", namespaced=False)
HELD = {"fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"}
PLACED = _core("Pod", Pod, "pods", namespaced=False, selects=HELD)
PRIORITIES = Source("PriorityClass", Object, ("scheduling.k8s.io/v1",), "priorityclasses", namespaced=False)
QUOTAS = _core("ResourceQuota", kinds.Quota, "resourcequotas")
ACCOUNTS = _core("ServiceAccount", Object, "serviceaccounts", only_metadata=True)
CLAIMS = _core("PersistentVolumeClaim", kinds.Claim, "persistentvolumeclaims")
LOCAL_QUEUES = Source("LocalQueue", kinds.LocalQueue, _KUEUE, "localqueues")
CLUSTER_QUEUES = Source("ClusterQueue", kinds.ClusterQueue, _KUEUE, "clusterqueues", namespaced=False)
FLAVORS = Source("ResourceFlavor", kinds.ResourceFlavor, _KUEUE, "resourceflavors", namespaced=False)
LIMITS = _core("LimitRange", kinds.LimitRange, "limitranges")
TEMPLATES = Source(
    "ResourceClaimTemplate", Object, ("resource.k8s.io/v1",), "resourceclaimtemplates", only_metadata=True
)


OF_NO_NODE = {"fieldSelector": "involvedObject.kind!=Node"}
"""Every node leaves events in the namespace `default`, and no rule reads them."""
EVENTS = _core("Event", kinds.Event, "events", fresh=True, selects=OF_NO_NODE)
POD_GROUPS = Source("PodGroup", kinds.PodGroup, ("scheduling.k8s.io/v1beta1",), "podgroups", fresh=True)
WORKLOADS = Source("Workload", kinds.Workload, _KUEUE, "workloads", fresh=True)
CONFIGS = _core("ConfigMap", Object, "configmaps", only_metadata=True)
STORAGE = Source(
    "StorageClass", kinds.StorageClass, ("storage.k8s.io/v1",), "storageclasses", namespaced=False
)
SERVICES = _core("Service", kinds.Service, "services")
POLICIES = Source("NetworkPolicy", kinds.NetworkPolicy, ("networking.k8s.io/v1",), "networkpolicies")
PLANNING = (
    *(PLACED, NODES, QUOTAS, LIMITS, ACCOUNTS, CLAIMS, TEMPLATES, PRIORITIES),
    *(LOCAL_QUEUES, CLUSTER_QUEUES, FLAVORS),
)
"""What `plan` compares a run with."""


class Seen(NamedTuple):
    """What was found, and what could not be read: one sentence each."""

    world: World
    unread: tuple[str, ...]


def look(cluster: Cluster, sources: Sequence[Source]) -> Seen:
    """The objects of these sources; what the user may not read is left out and named.

    An object that two sources list is that of the later one: put what is read as it is now last.
    Raises ClusterError when the cluster cannot be asked at all.
    """
    objects: dict[tuple[str, str, str], Object] = {}
    refused, unread = set(), []
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for source, (found, problem) in zip(
            sources, pool.map(lambda each: _read(cluster, each), sources), strict=True
        ):
            objects |= {(source.kind, item.metadata.namespace, item.metadata.name): item for item in found}
            if problem:
                refused.add(source.kind)
                unread.append(problem)
    world = World(list(objects.values()))
    world.complete = frozenset(source.kind for source in sources) - refused
    return Seen(world, tuple(unread))


def _read(cluster: Cluster, source: Source) -> tuple[list[Object], str | None]:
    """One list, and why it could not be read."""
    for version in source.versions:
        try:
            return _list(cluster, source, version), None
        except Refused as error:
            if error.status == 403:
                return [], forbidden(source, version, cluster.namespace)
            if error.status != 404:
                raise
    return [], None


def _list(cluster: Cluster, source: Source, version: str) -> list[Object]:
    path = path_of(cluster, source, version)
    headers = {"Accept": ONLY_METADATA} if source.only_metadata else {}
    params = dict(source.selects) | ({} if source.fresh else {"resourceVersion": "0"})
    try:
        return decode_list(
            cluster.send("GET", path, params=params, headers=headers), source.known, source.kind
        )
    except msgspec.DecodeError as error:
        raise ClusterError(
            f"cluster {cluster.url}: GET {path}: its answer cannot be read: {error}"
        ) from error


def path_of(cluster: Cluster, source: Source, version: str) -> str:
    """Where objects of a source are listed."""
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    place = f"/namespaces/{cluster.namespace}" if source.namespaced else ""
    return f"{root}{place}/{source.plural}"


def forbidden(source: Source, version: str, namespace: str) -> str:
    """What right is missing, in the words of RBAC."""
    group = version.rpartition("/")[0]
    what = f"{source.plural}.{group}" if group else source.plural
    where = f"in namespace {namespace}" if source.namespaced else "in the whole cluster (a ClusterRole)"
    return f"{what} may not be read: the verb `list` on them is missing {where}; deploy/kubernetes/rbac-look.yaml has it"
