"""The Kubernetes objects that `why` reads: only the fields it looks at, everything else is passed over."""

import msgspec

from tradewind.launch.why.pods import (
    TEXT_LIMIT,
    Amount,
    Condition,
    LabelSelector,
    Meta,
    Object,
    Part,
    Pod,
    PodSpec,
)


class Template(Part, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()


class JobSpec(Part, frozen=True, kw_only=True):
    parallelism: int = 1
    completions: int | None = None
    suspend: bool = False
    backoff_limit: int | None = None
    active_deadline_seconds: int | None = None
    template: Template = Template()


class JobStatus(Part, frozen=True, kw_only=True):
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: str = ""
    conditions: tuple[Condition, ...] = ()


class Job(Object, frozen=True, kw_only=True):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class Taint(Part, frozen=True, kw_only=True):
    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str = ""


class NodeSpec(Part, frozen=True, kw_only=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(Part, frozen=True, kw_only=True):
    allocatable: dict[str, Amount] = msgspec.field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()


class Node(Object, frozen=True, kw_only=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class About(Part, frozen=True, kw_only=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Series(Part, frozen=True, kw_only=True):
    last_observed_time: str | None = None


class Event(Object, frozen=True, kw_only=True):
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


class QuotaSpec(Part, frozen=True, kw_only=True):
    hard: dict[str, Amount] = msgspec.field(default_factory=dict)
    scopes: tuple[str, ...] = ()
    scope_selector: LabelSelector | None = None


class QuotaStatus(Part, frozen=True, kw_only=True):
    hard: dict[str, Amount] = msgspec.field(default_factory=dict)
    used: dict[str, Amount] = msgspec.field(default_factory=dict)


class Quota(Object, frozen=True, kw_only=True):
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class Gang(Part, frozen=True, kw_only=True):
    min_count: int = 0


class GroupPolicy(Part, frozen=True, kw_only=True):
    gang: Gang = Gang()


class TopologyKey(Part, frozen=True, kw_only=True):
    key: str = ""


class GroupConstraints(Part, frozen=True, kw_only=True):
    topology: tuple[TopologyKey, ...] = ()


class GroupSpec(Part, frozen=True, kw_only=True):
    scheduling_policy: GroupPolicy = GroupPolicy()
    scheduling_constraints: GroupConstraints = GroupConstraints()
    min_member: int = 0


class Conditions(Part, frozen=True, kw_only=True):
    conditions: tuple[Condition, ...] = ()


class PodGroup(Object, frozen=True, kw_only=True):
    """A gang: of Kubernetes itself, of the coscheduling plugin, or of Volcano."""

    spec: GroupSpec = GroupSpec()
    status: Conditions = Conditions()

    @property
    def needs(self) -> int:
        """How many pods must be placed at once."""
        return self.spec.scheduling_policy.gang.min_count or self.spec.min_member


class WorkloadSpec(Part, frozen=True, kw_only=True):
    queue_name: str = ""


class Workload(Object, frozen=True, kw_only=True):
    """Kueue's view of a job."""

    spec: WorkloadSpec = WorkloadSpec()
    status: Conditions = Conditions()


class LocalQueueSpec(Part, frozen=True, kw_only=True):
    cluster_queue: str = ""
    stop_policy: str = ""


class LocalQueue(Object, frozen=True, kw_only=True):
    spec: LocalQueueSpec = LocalQueueSpec()
    status: Conditions = Conditions()


class QueueResource(Part, frozen=True, kw_only=True):
    name: str = ""
    nominal_quota: Amount = 0
    borrowing_limit: Amount | None = None


class Flavor(Part, frozen=True, kw_only=True):
    name: str = ""
    resources: tuple[QueueResource, ...] = ()


class ResourceGroup(Part, frozen=True, kw_only=True):
    flavors: tuple[Flavor, ...] = ()


class ClusterQueueSpec(Part, frozen=True, kw_only=True):
    stop_policy: str = ""
    cohort: str = ""
    cohort_name: str = ""
    resource_groups: tuple[ResourceGroup, ...] = ()


class Used(Part, frozen=True, kw_only=True):
    name: str = ""
    total: Amount = 0


class FlavorUse(Part, frozen=True, kw_only=True):
    name: str = ""
    resources: tuple[Used, ...] = ()


class ClusterQueueStatus(Conditions, frozen=True, kw_only=True):
    flavors_reservation: tuple[FlavorUse, ...] = ()


class ClusterQueue(Object, frozen=True, kw_only=True):
    spec: ClusterQueueSpec = ClusterQueueSpec()
    status: ClusterQueueStatus = ClusterQueueStatus()

    @property
    def cohort(self) -> str:
        """The queues that it borrows from; empty for none."""
        return self.spec.cohort_name or self.spec.cohort


class ResourceFlavorSpec(Part, frozen=True, kw_only=True):
    node_labels: dict[str, str] = msgspec.field(default_factory=dict)


class ResourceFlavor(Object, frozen=True, kw_only=True):
    """The nodes that a part of Kueue's quota is about."""

    spec: ResourceFlavorSpec = ResourceFlavorSpec()


class Limit(Part, frozen=True, kw_only=True):
    type: str = ""
    default: dict[str, Amount] = msgspec.field(default_factory=dict)
    default_request: dict[str, Amount] = msgspec.field(default_factory=dict)


class LimitRangeSpec(Part, frozen=True, kw_only=True):
    limits: tuple[Limit, ...] = ()


class LimitRange(Object, frozen=True, kw_only=True):
    """What containers of a namespace get that do not say themselves."""

    spec: LimitRangeSpec = LimitRangeSpec()


class ClaimSpec(Part, frozen=True, kw_only=True):
    storage_class_name: str = ""
    volume_name: str = ""


class ClaimStatus(Part, frozen=True, kw_only=True):
    phase: str = ""


class Claim(Object, frozen=True, kw_only=True):
    """A PersistentVolumeClaim."""

    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class StorageClass(Object, frozen=True, kw_only=True):
    volume_binding_mode: str = "Immediate"


class ServiceSpec(Part, frozen=True, kw_only=True):
    selector: dict[str, str] = msgspec.field(default_factory=dict)


class Service(Object, frozen=True, kw_only=True):
    spec: ServiceSpec = ServiceSpec()


class PolicyPeer(Part, frozen=True, kw_only=True):
    pod_selector: LabelSelector | None = None


class PolicyRule(Part, frozen=True, kw_only=True):
    from_: tuple[PolicyPeer, ...] = msgspec.field(name="from", default=())


class PolicySpec(Part, frozen=True, kw_only=True):
    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[str, ...] = ()
    ingress: tuple[PolicyRule, ...] = ()


class NetworkPolicy(Object, frozen=True, kw_only=True):
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
