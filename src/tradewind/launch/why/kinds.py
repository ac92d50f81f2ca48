"""The Kubernetes objects that `why` reads: only the fields it looks at, everything else is passed over."""

import msgspec

Amount = str | int | float
"""A quantity as the API prints it; YAML that people wrote may hold numbers."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A piece of an object; absent and null fields have their defaults."""


class Owner(_Part, frozen=True, kw_only=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class Meta(_Part, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[Owner, ...] = ()


class Condition(_Part, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class Object(_Part, frozen=True, kw_only=True):
    """What every object has."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta = Meta()

    @property
    def ref(self) -> str:
        """`pod/train-0-abcde`, with its namespace in front where it has one."""
        place = f"{self.metadata.namespace}/" if self.metadata.namespace else ""
        return f"{place}{self.kind.lower()}/{self.metadata.name}"


class Requirement(_Part, frozen=True, kw_only=True):
    """One expression of a selector."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(_Part, frozen=True, kw_only=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()


class NodeTerm(_Part, frozen=True, kw_only=True):
    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()


class NodeTerms(_Part, frozen=True, kw_only=True):
    node_selector_terms: tuple[NodeTerm, ...] = ()


class NodeAffinity(_Part, frozen=True, kw_only=True):
    required: NodeTerms | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )


class PodTerm(_Part, frozen=True, kw_only=True):
    label_selector: LabelSelector | None = None
    topology_key: str = ""
    namespaces: tuple[str, ...] = ()


class PodAffinity(_Part, frozen=True, kw_only=True):
    required: tuple[PodTerm, ...] = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=()
    )


class Affinity(_Part, frozen=True, kw_only=True):
    node_affinity: NodeAffinity = NodeAffinity()
    pod_affinity: PodAffinity = PodAffinity()
    pod_anti_affinity: PodAffinity = PodAffinity()


class Spread(_Part, frozen=True, kw_only=True):
    topology_key: str = ""
    when_unsatisfiable: str = ""


class Toleration(_Part, frozen=True, kw_only=True):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class Resources(_Part, frozen=True, kw_only=True):
    requests: dict[str, Amount] = {}
    limits: dict[str, Amount] = {}


class Named(_Part, frozen=True, kw_only=True):
    """Anything that is named and may be optional."""

    name: str = ""
    optional: bool = False


class ValueFrom(_Part, frozen=True, kw_only=True):
    config_map_key_ref: Named | None = None
    secret_key_ref: Named | None = None


class EnvVar(_Part, frozen=True, kw_only=True):
    value_from: ValueFrom = ValueFrom()


class EnvFrom(_Part, frozen=True, kw_only=True):
    config_map_ref: Named | None = None
    secret_ref: Named | None = None


class Container(_Part, frozen=True, kw_only=True):
    name: str = ""
    image: str = ""
    resources: Resources = Resources()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    restart_policy: str = ""


class SecretVolume(_Part, frozen=True, kw_only=True):
    secret_name: str = ""
    optional: bool = False


class ClaimVolume(_Part, frozen=True, kw_only=True):
    claim_name: str = ""


class ProjectedSource(_Part, frozen=True, kw_only=True):
    config_map: Named | None = None
    secret: Named | None = None


class Projected(_Part, frozen=True, kw_only=True):
    sources: tuple[ProjectedSource, ...] = ()


class Volume(_Part, frozen=True, kw_only=True):
    name: str = ""
    config_map: Named | None = None
    secret: SecretVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    projected: Projected = Projected()


class Gate(_Part, frozen=True, kw_only=True):
    name: str = ""


class SchedulingGroup(_Part, frozen=True, kw_only=True):
    pod_group_name: str = ""


class PodSpec(_Part, frozen=True, kw_only=True):
    node_name: str = ""
    node_selector: dict[str, str] = {}
    affinity: Affinity = Affinity()
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[Spread, ...] = ()
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    overhead: dict[str, Amount] = {}
    volumes: tuple[Volume, ...] = ()
    scheduling_gates: tuple[Gate, ...] = ()
    scheduling_group: SchedulingGroup = SchedulingGroup()
    scheduler_name: str = "default-scheduler"
    service_account_name: str = ""
    priority_class_name: str = ""
    priority: int = 0
    restart_policy: str = ""
    subdomain: str = ""


class Waiting(_Part, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class Running(_Part, frozen=True, kw_only=True):
    started_at: str = ""


class Terminated(_Part, frozen=True, kw_only=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    finished_at: str = ""


class State(_Part, frozen=True, kw_only=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Part, frozen=True, kw_only=True):
    name: str = ""
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: State = State()
    last_state: State = State()


class PodStatus(_Part, frozen=True, kw_only=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: str = ""
    nominated_node_name: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Object, frozen=True, kw_only=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Template(_Part, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()


class JobSpec(_Part, frozen=True, kw_only=True):
    parallelism: int = 1
    completions: int | None = None
    suspend: bool = False
    backoff_limit: int | None = None
    active_deadline_seconds: int | None = None
    template: Template = Template()


class JobStatus(_Part, frozen=True, kw_only=True):
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: str = ""
    conditions: tuple[Condition, ...] = ()


class Job(Object, frozen=True, kw_only=True):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class Taint(_Part, frozen=True, kw_only=True):
    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str = ""


class NodeSpec(_Part, frozen=True, kw_only=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(_Part, frozen=True, kw_only=True):
    allocatable: dict[str, Amount] = {}
    conditions: tuple[Condition, ...] = ()


class Node(Object, frozen=True, kw_only=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class About(_Part, frozen=True, kw_only=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Series(_Part, frozen=True, kw_only=True):
    last_observed_time: str = ""


class Event(Object, frozen=True, kw_only=True):
    """An event of either API group."""

    involved_object: About = About()
    regarding: About = About()
    type: str = ""
    reason: str = ""
    message: str = ""
    note: str = ""
    first_timestamp: str = ""
    last_timestamp: str = ""
    deprecated_last_timestamp: str = ""
    event_time: str = ""
    series: Series = Series()

    @property
    def about(self) -> About:
        """The object it is about."""
        return self.involved_object if self.involved_object.name else self.regarding

    @property
    def text(self) -> str:
        """What it says."""
        return self.message or self.note

    @property
    def time(self) -> str:
        """When it was last seen; in one format, so it sorts as text."""
        last = self.last_timestamp or self.series.last_observed_time or self.deprecated_last_timestamp
        return last or self.event_time or self.first_timestamp or self.metadata.creation_timestamp


class QuotaSpec(_Part, frozen=True, kw_only=True):
    hard: dict[str, Amount] = {}
    scopes: tuple[str, ...] = ()
    scope_selector: LabelSelector | None = None


class QuotaStatus(_Part, frozen=True, kw_only=True):
    hard: dict[str, Amount] = {}
    used: dict[str, Amount] = {}


class Quota(Object, frozen=True, kw_only=True):
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class Gang(_Part, frozen=True, kw_only=True):
    min_count: int = 0


class GroupPolicy(_Part, frozen=True, kw_only=True):
    gang: Gang = Gang()


class TopologyKey(_Part, frozen=True, kw_only=True):
    key: str = ""


class GroupConstraints(_Part, frozen=True, kw_only=True):
    topology: tuple[TopologyKey, ...] = ()


class GroupSpec(_Part, frozen=True, kw_only=True):
    scheduling_policy: GroupPolicy = GroupPolicy()
    scheduling_constraints: GroupConstraints = GroupConstraints()
    min_member: int = 0


class Conditions(_Part, frozen=True, kw_only=True):
    conditions: tuple[Condition, ...] = ()


class PodGroup(Object, frozen=True, kw_only=True):
    """A gang: of Kubernetes itself, of the coscheduling plugin, or of Volcano."""

    spec: GroupSpec = GroupSpec()
    status: Conditions = Conditions()

    @property
    def needs(self) -> int:
        """How many pods must be placed at once."""
        return self.spec.scheduling_policy.gang.min_count or self.spec.min_member


class WorkloadSpec(_Part, frozen=True, kw_only=True):
    queue_name: str = ""


class Workload(Object, frozen=True, kw_only=True):
    """Kueue's view of a job."""

    spec: WorkloadSpec = WorkloadSpec()
    status: Conditions = Conditions()


class LocalQueueSpec(_Part, frozen=True, kw_only=True):
    cluster_queue: str = ""
    stop_policy: str = ""


class LocalQueue(Object, frozen=True, kw_only=True):
    spec: LocalQueueSpec = LocalQueueSpec()
    status: Conditions = Conditions()


class QueueResource(_Part, frozen=True, kw_only=True):
    name: str = ""
    nominal_quota: Amount = 0
    borrowing_limit: Amount | None = None


class Flavor(_Part, frozen=True, kw_only=True):
    name: str = ""
    resources: tuple[QueueResource, ...] = ()


class ResourceGroup(_Part, frozen=True, kw_only=True):
    flavors: tuple[Flavor, ...] = ()


class ClusterQueueSpec(_Part, frozen=True, kw_only=True):
    stop_policy: str = ""
    cohort: str = ""
    cohort_name: str = ""
    resource_groups: tuple[ResourceGroup, ...] = ()


class ClusterQueue(Object, frozen=True, kw_only=True):
    spec: ClusterQueueSpec = ClusterQueueSpec()
    status: Conditions = Conditions()


class ClaimSpec(_Part, frozen=True, kw_only=True):
    storage_class_name: str = ""
    volume_name: str = ""


class ClaimStatus(_Part, frozen=True, kw_only=True):
    phase: str = ""


class Claim(Object, frozen=True, kw_only=True):
    """A PersistentVolumeClaim."""

    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class StorageClass(Object, frozen=True, kw_only=True):
    volume_binding_mode: str = "Immediate"


class ServiceSpec(_Part, frozen=True, kw_only=True):
    selector: dict[str, str] = {}


class Service(Object, frozen=True, kw_only=True):
    spec: ServiceSpec = ServiceSpec()


class PolicyPeer(_Part, frozen=True, kw_only=True):
    pod_selector: LabelSelector | None = None


class PolicyRule(_Part, frozen=True, kw_only=True):
    from_: tuple[PolicyPeer, ...] = msgspec.field(name="from", default=())


class PolicySpec(_Part, frozen=True, kw_only=True):
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
    "PersistentVolumeClaim": Claim,
    "StorageClass": StorageClass,
    "Service": Service,
    "NetworkPolicy": NetworkPolicy,
    "ConfigMap": Object,
    "Secret": Object,
    "ServiceAccount": Object,
    "PriorityClass": Object,
}
"""What is read, by `kind`; objects of other kinds are passed over."""
