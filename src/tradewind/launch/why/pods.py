"""Pods and what all Kubernetes objects have: only the fields that `why` looks at."""

import msgspec

Amount = str | int | float
"""A quantity as the API prints it; YAML that people wrote may hold numbers."""


TEXT_LIMIT = 8192
"""Characters of a message that are looked at; the API lets through half as many, a stranger any number."""


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A piece of an object; absent and null fields have their defaults.

    Such pieces hold no cycles, so the collector need not walk the tens of thousands of a large cluster.
    """


class Owner(Part, frozen=True, kw_only=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class Meta(Part, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[Owner, ...] = ()


class Condition(Part, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class Object(Part, frozen=True, kw_only=True):
    """What every object has."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta = Meta()

    @property
    def ref(self) -> str:
        """`pod/train-0-abcde`, with its namespace in front where it has one."""
        place = f"{self.metadata.namespace}/" if self.metadata.namespace else ""
        return f"{place}{self.kind.lower()}/{self.metadata.name}"


class Requirement(Part, frozen=True, kw_only=True):
    """One expression of a selector."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(Part, frozen=True, kw_only=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()


class NodeTerm(Part, frozen=True, kw_only=True):
    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()


class NodeTerms(Part, frozen=True, kw_only=True):
    node_selector_terms: tuple[NodeTerm, ...] = ()


class NodeAffinity(Part, frozen=True, kw_only=True):
    required: NodeTerms | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )


class PodTerm(Part, frozen=True, kw_only=True):
    label_selector: LabelSelector | None = None
    topology_key: str = ""
    namespaces: tuple[str, ...] = ()


class PodAffinity(Part, frozen=True, kw_only=True):
    required: tuple[PodTerm, ...] = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=()
    )


class Affinity(Part, frozen=True, kw_only=True):
    node_affinity: NodeAffinity = NodeAffinity()
    pod_affinity: PodAffinity = PodAffinity()
    pod_anti_affinity: PodAffinity = PodAffinity()


class Spread(Part, frozen=True, kw_only=True):
    topology_key: str = ""
    when_unsatisfiable: str = ""


class Toleration(Part, frozen=True, kw_only=True):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class Resources(Part, frozen=True, kw_only=True):
    requests: dict[str, Amount] = {}
    limits: dict[str, Amount] = {}


class Named(Part, frozen=True, kw_only=True):
    """Anything that is named and may be optional."""

    name: str = ""
    optional: bool = False


class ValueFrom(Part, frozen=True, kw_only=True):
    config_map_key_ref: Named | None = None
    secret_key_ref: Named | None = None


class EnvVar(Part, frozen=True, kw_only=True):
    value_from: ValueFrom = ValueFrom()


class EnvFrom(Part, frozen=True, kw_only=True):
    config_map_ref: Named | None = None
    secret_ref: Named | None = None


class Container(Part, frozen=True, kw_only=True):
    name: str = ""
    image: str = ""
    resources: Resources = Resources()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    restart_policy: str = ""


class SecretVolume(Part, frozen=True, kw_only=True):
    secret_name: str = ""
    optional: bool = False


class ClaimVolume(Part, frozen=True, kw_only=True):
    claim_name: str = ""


class ProjectedSource(Part, frozen=True, kw_only=True):
    config_map: Named | None = None
    secret: Named | None = None


class Projected(Part, frozen=True, kw_only=True):
    sources: tuple[ProjectedSource, ...] = ()


class Volume(Part, frozen=True, kw_only=True):
    name: str = ""
    config_map: Named | None = None
    secret: SecretVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    projected: Projected = Projected()


class Gate(Part, frozen=True, kw_only=True):
    name: str = ""


class SchedulingGroup(Part, frozen=True, kw_only=True):
    pod_group_name: str = ""


class PodSpec(Part, frozen=True, kw_only=True):
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


class Waiting(Part, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class Running(Part, frozen=True, kw_only=True):
    started_at: str = ""


class Terminated(Part, frozen=True, kw_only=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    finished_at: str = ""

    @property
    def text(self) -> str:
        """The end of what it said."""
        return self.message[-TEXT_LIMIT:]


class State(Part, frozen=True, kw_only=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Part, frozen=True, kw_only=True):
    name: str = ""
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: State = State()
    last_state: State = State()


class PodStatus(Part, frozen=True, kw_only=True):
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
