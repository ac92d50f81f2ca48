"""Pods and what all Kubernetes objects have: only the fields that `why` looks at."""

from tradewind.launch.why.part import EMPTY, Part

Amount = str | int | float
"""A quantity as the API prints it; YAML that people wrote may hold numbers."""


TEXT_LIMIT = 8192
"""Characters of a message that are looked at; the API lets through half as many, a stranger any number."""


class Owner(Part):
    kind: str = ""
    name: str = ""
    uid: str = ""


class Meta(Part):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = EMPTY
    annotations: dict[str, str] = EMPTY
    owner_references: tuple[Owner, ...] = ()


class Condition(Part):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class Object(Part):
    """What every object has."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta = Meta()

    @property
    def ref(self) -> str:
        """`pod/train-0-abcde`, with its namespace in front where it has one."""
        place = f"{self.metadata.namespace}/" if self.metadata.namespace else ""
        return f"{place}{self.kind.lower()}/{self.metadata.name}"


class Requirement(Part):
    """One expression of a selector."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(Part):
    match_labels: dict[str, str] = EMPTY
    match_expressions: tuple[Requirement, ...] = ()


class NodeTerm(Part):
    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()


class NodeTerms(Part):
    node_selector_terms: tuple[NodeTerm, ...] = ()


class NodeAffinity(Part, required="requiredDuringSchedulingIgnoredDuringExecution"):
    required: NodeTerms | None = None


class PodTerm(Part):
    label_selector: LabelSelector | None = None
    topology_key: str = ""
    namespaces: tuple[str, ...] = ()


class PodAffinity(Part, required="requiredDuringSchedulingIgnoredDuringExecution"):
    required: tuple[PodTerm, ...] = ()


class Affinity(Part):
    node_affinity: NodeAffinity = NodeAffinity()
    pod_affinity: PodAffinity = PodAffinity()
    pod_anti_affinity: PodAffinity = PodAffinity()


class Spread(Part):
    topology_key: str = ""
    when_unsatisfiable: str = ""


class Toleration(Part):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class Resources(Part):
    requests: dict[str, Amount] = EMPTY
    limits: dict[str, Amount] = EMPTY


class Named(Part):
    """Anything that is named and may be optional."""

    name: str = ""
    optional: bool = False


class ValueFrom(Part):
    config_map_key_ref: Named | None = None
    secret_key_ref: Named | None = None


class EnvVar(Part):
    value_from: ValueFrom = ValueFrom()


class EnvFrom(Part):
    config_map_ref: Named | None = None
    secret_ref: Named | None = None


class Container(Part):
    name: str = ""
    image: str = ""
    resources: Resources = Resources()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    restart_policy: str = ""


class SecretVolume(Part):
    secret_name: str = ""
    optional: bool = False


class ClaimVolume(Part):
    claim_name: str = ""


class ProjectedSource(Part):
    config_map: Named | None = None
    secret: Named | None = None


class Projected(Part):
    sources: tuple[ProjectedSource, ...] = ()


class Volume(Part):
    name: str = ""
    config_map: Named | None = None
    secret: SecretVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    projected: Projected = Projected()


class Gate(Part):
    name: str = ""


class SchedulingGroup(Part):
    pod_group_name: str = ""


class PodSpec(Part):
    node_name: str = ""
    node_selector: dict[str, str] = EMPTY
    affinity: Affinity = Affinity()
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[Spread, ...] = ()
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    overhead: dict[str, Amount] = EMPTY
    volumes: tuple[Volume, ...] = ()
    scheduling_gates: tuple[Gate, ...] = ()
    scheduling_group: SchedulingGroup = SchedulingGroup()
    scheduler_name: str = "default-scheduler"
    service_account_name: str = ""
    priority_class_name: str = ""
    priority: int = 0
    restart_policy: str = ""
    subdomain: str = ""


class Waiting(Part):
    reason: str = ""
    message: str = ""


class Running(Part):
    started_at: str = ""


class Terminated(Part):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    finished_at: str = ""

    @property
    def text(self) -> str:
        """The end of what it said."""
        return self.message[-TEXT_LIMIT:]


class State(Part):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Part):
    name: str = ""
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: State = State()
    last_state: State = State()


class PodStatus(Part):
    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: str = ""
    nominated_node_name: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Object):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
