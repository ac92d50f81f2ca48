"""The Kubernetes objects that `why` reads: only the fields it looks at, everything else is passed over."""

from tradewind.launch.why.part import EMPTY, Part
from tradewind.launch.why.pods import (
    TEXT_LIMIT,
    Amount,
    Condition,
    LabelSelector,
    Meta,
    Object,
    Pod,
    PodSpec,
)


class Template(Part):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()


class JobSpec(Part):
    parallelism: int = 1
    completions: int | None = None
    suspend: bool = False
    backoff_limit: int | None = None
    active_deadline_seconds: int | None = None
    template: Template = Template()


class JobStatus(Part):
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: str = ""
    conditions: tuple[Condition, ...] = ()


class Job(Object):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class Taint(Part):
    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str = ""


class NodeSpec(Part):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(Part):
    allocatable: dict[str, Amount] = EMPTY
    conditions: tuple[Condition, ...] = ()


class Node(Object):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class About(Part):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Series(Part):
    last_observed_time: str | None = None


class Event(Object):
    """An event of either API group; the API server prints times that it does not have as null."""

    involved_object: About = About()
    regarding: About = About()
    type: str = ""
    reason: str = ""
    message: str = ""
    note: str = ""
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    deprecated_last_timestamp: str | None = None
    event_time: str | None = None
    series: Series | None = None

    @property
    def about(self) -> About:
        """The object it is about."""
        return self.involved_object if self.involved_object.name else self.regarding

    @property
    def text(self) -> str:
        """What it says."""
        return (self.message or self.note)[:TEXT_LIMIT]

    @property
    def time(self) -> str:
        """When it was last seen; in one format, so it sorts as text."""
        again = self.series.last_observed_time if self.series else None
        last = self.last_timestamp or again or self.deprecated_last_timestamp
        return last or self.event_time or self.first_timestamp or self.metadata.creation_timestamp


class QuotaSpec(Part):
    hard: dict[str, Amount] = EMPTY
    scopes: tuple[str, ...] = ()
    scope_selector: LabelSelector | None = None


class QuotaStatus(Part):
    hard: dict[str, Amount] = EMPTY
    used: dict[str, Amount] = EMPTY


class Quota(Object):
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class Gang(Part):
    min_count: int = 0


class GroupPolicy(Part):
    gang: Gang = Gang()


class TopologyKey(Part):
    key: str = ""


class GroupConstraints(Part):
    topology: tuple[TopologyKey, ...] = ()


class GroupSpec(Part):
    scheduling_policy: GroupPolicy = GroupPolicy()
    scheduling_constraints: GroupConstraints = GroupConstraints()
    min_member: int = 0


class Conditions(Part):
    conditions: tuple[Condition, ...] = ()


class PodGroup(Object):
    """A gang: of Kubernetes itself, of the coscheduling plugin, or of Volcano."""

    spec: GroupSpec = GroupSpec()
    status: Conditions = Conditions()

    @property
    def needs(self) -> int:
        """How many pods must be placed at once."""
        return self.spec.scheduling_policy.gang.min_count or self.spec.min_member


class WorkloadSpec(Part):
    queue_name: str = ""


class Workload(Object):
    """Kueue's view of a job."""

    spec: WorkloadSpec = WorkloadSpec()
    status: Conditions = Conditions()


class LocalQueueSpec(Part):
    cluster_queue: str = ""
    stop_policy: str = ""


class LocalQueue(Object):
    spec: LocalQueueSpec = LocalQueueSpec()
    status: Conditions = Conditions()


class QueueResource(Part):
    name: str = ""
    nominal_quota: Amount = 0
    borrowing_limit: Amount | None = None


class Flavor(Part):
    name: str = ""
    resources: tuple[QueueResource, ...] = ()


class ResourceGroup(Part):
    flavors: tuple[Flavor, ...] = ()


class ClusterQueueSpec(Part):
    stop_policy: str = ""
    cohort: str = ""
    cohort_name: str = ""
    resource_groups: tuple[ResourceGroup, ...] = ()


class Used(Part):
    name: str = ""
    total: Amount = 0


class FlavorUse(Part):
    name: str = ""
    resources: tuple[Used, ...] = ()


class ClusterQueueStatus(Conditions):
    flavors_reservation: tuple[FlavorUse, ...] = ()


class ClusterQueue(Object):
    spec: ClusterQueueSpec = ClusterQueueSpec()
    status: ClusterQueueStatus = ClusterQueueStatus()

    @property
    def cohort(self) -> str:
        """The queues that it borrows from; empty for none."""
        return self.spec.cohort_name or self.spec.cohort


class ResourceFlavorSpec(Part):
    node_labels: dict[str, str] = EMPTY


class ResourceFlavor(Object):
    """The nodes that a part of Kueue's quota is about."""

    spec: ResourceFlavorSpec = ResourceFlavorSpec()


class Limit(Part):
    type: str = ""
    default: dict[str, Amount] = EMPTY
    default_request: dict[str, Amount] = EMPTY


class LimitRangeSpec(Part):
    limits: tuple[Limit, ...] = ()


class LimitRange(Object):
    """What containers of a namespace get that do not say themselves."""

    spec: LimitRangeSpec = LimitRangeSpec()


class ClaimSpec(Part):
    storage_class_name: str = ""
    volume_name: str = ""


class ClaimStatus(Part):
    phase: str = ""


class Claim(Object):
    """A PersistentVolumeClaim."""

    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class StorageClass(Object):
    volume_binding_mode: str = "Immediate"


class ServiceSpec(Part):
    selector: dict[str, str] = EMPTY


class Service(Object):
    spec: ServiceSpec = ServiceSpec()


class PolicyPeer(Part):
    pod_selector: LabelSelector | None = None


class PolicyRule(Part, from_="from"):
    from_: tuple[PolicyPeer, ...] = ()


class PolicySpec(Part):
    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[str, ...] = ()
    ingress: tuple[PolicyRule, ...] = ()


class NetworkPolicy(Object):
    spec: PolicySpec = PolicySpec()


KINDS: dict[str, type[Object]] = {
    "Job": Job,
    "Pod": Pod,
    "Node": Node,
    "Event": Event,
    "ResourceQuota": Quota,
    "PodGroup": PodGroup,
    "Workload": Workload,
    "LocalQueue": LocalQueue,
    "ClusterQueue": ClusterQueue,
    "ResourceFlavor": ResourceFlavor,
    "LimitRange": LimitRange,
    "PersistentVolumeClaim": Claim,
    "StorageClass": StorageClass,
    "Service": Service,
    "NetworkPolicy": NetworkPolicy,
    "ConfigMap": Object,
    "Secret": Object,
    "ServiceAccount": Object,
    "PriorityClass": Object,
    "ResourceClaimTemplate": Object,
}
"""What is read, by `kind`; objects of other kinds are passed over."""
