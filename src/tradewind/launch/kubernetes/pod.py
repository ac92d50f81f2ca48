"""The pod of one host: the code laid out by an init step, then one agent."""

from collections.abc import Callable, Sequence
from typing import Any

from tradewind import names
from tradewind.launch.kubernetes.request import Request, host_resources, object_name, shared_memory
from tradewind.spec import Toleration

ROOT = "/tradewind"
PARTS, RUN, HOME = f"{ROOT}/parts", f"{ROOT}/run", f"{ROOT}/home"
CODE = f"{RUN}/code"
TOKEN = "token"
"""Key of the run's Secret."""
SCRATCH = (("parts", PARTS), ("run", RUN), ("home", HOME), ("tmp", "/tmp"))
AGENT, UNPACK = "agent", "code"
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"

HostName = Callable[[int], str]
"""The address of the host with an index, without its port."""


def agent_command(request: Request) -> list[str]:
    """What runs on every host; `run.json` holds the run as the store keeps it.

    Its exit code says what the Job does: 0 this host is done, 75 replace it and do not count it, 65 and the
    other codes of `job.FINAL` end the run, and anything else replaces it and counts.
    """
    # -P: a `queue.py` in the project must not take the place of Python's own.
    return [request.context.python, "-P", "-m", "tradewind.agent.fleet", f"{PARTS}/run.json", RUN]


def unpack_command(request: Request) -> list[str]:
    """What lays out the code: the program that came with it, else a fetch from the blob store."""
    python, lasting = request.context.python, checkpoints(request)
    into = [CODE, f"{RUN}/{names.CHECKPOINTS_DIR}", *([lasting] if lasting else [])]
    if request.code.layers:
        return [python, "-I", f"{PARTS}/unpack.py", PARTS, *into]
    return [python, "-P", "-m", "tradewind.launch.kubernetes.fetch", request.code.digest, *into]


def pod_template(request: Request, host_name: HostName | None, agent: str = AGENT) -> dict[str, Any]:
    """The template from which every host of the run is made; `agent` names its main container.

    Without `host_name` something else places the agents and tells them of each other.
    """
    metadata: dict[str, Any] = {"labels": labels(request)}
    if request.placement.topology and request.placement.queue:
        metadata["annotations"] = {"kueue.x-k8s.io/podset-required-topology": request.placement.topology}
    return {"metadata": metadata, "spec": pod_spec(request, host_name, agent)}


def labels(request: Request) -> dict[str, str]:
    """What every object of the run is found by."""
    slug = object_name(request.name, request.run).removesuffix(f"-{request.run}")
    return {
        names.LABEL_NAME: slug,
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
        names.LABEL_RUN: request.run,
    }


def pod_spec(request: Request, host_name: HostName | None, agent: str) -> dict[str, Any]:
    """The pod of a host; it is never restarted in place, so that what failed can be told from what was lost."""
    placement = request.placement
    spec = {
        "restartPolicy": "Never",
        "subdomain": request.object_name,
        "terminationGracePeriodSeconds": request.grace_s,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": placement.service_account,
        "priorityClassName": placement.priority_class,
        "imagePullSecrets": [{"name": name} for name in placement.image_pull_secrets],
        "nodeSelector": node_selector(request),
        "tolerations": [toleration(item) for item in placement.tolerations],
        "affinity": affinity(request),
        "schedulingGroup": {"podGroupName": request.object_name} if request.gang == "native" else None,
        "resourceClaims": [{"name": name, "resourceClaimTemplateName": name} for name in placement.claims],
        "securityContext": pod_security(request.context.user_id),
        "initContainers": [unpack_container(request)],
        "containers": [agent_container(request, host_name, agent)],
        "volumes": volumes(request),
    }
    return without_empty(spec)


def without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    return {key: value for key, value in fields.items() if value is not None and value not in ([], {}, "")}


def node_selector(request: Request) -> dict[str, str]:
    """Nodes of the GPU type that was asked for, and what else the placement says."""
    gpu_type = request.spec.resources.gpu_type
    wanted = {request.context.gpu_label: gpu_type} if gpu_type else {}
    return wanted | request.placement.node_selector


def toleration(item: Toleration) -> dict[str, Any]:
    """One toleration in the API's words."""
    fields = {
        "key": item.key,
        "operator": item.operator,
        "value": item.value,
        "effect": item.effect,
        "tolerationSeconds": item.seconds,
    }
    return {key: value for key, value in fields.items() if value is not None}


def affinity(request: Request) -> dict[str, Any] | None:
    """All hosts in one rack, block or zone, where no gang scheduler sees to it."""
    topology = request.placement.topology
    if topology is None or request.gang == "native" or request.placement.queue:
        return None
    term = {
        "topologyKey": topology,
        "labelSelector": {"matchLabels": {names.LABEL_RUN: request.run}},
    }
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def pod_security(user: int) -> dict[str, Any]:
    """Nobody's root; files on volumes belong to the user's group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(request: Request) -> dict[str, Any]:
    """No privileges and a root file system that stays as it was; RDMA has to pin memory."""
    rdma = any("rdma" in name or name.startswith("hugepages-") for name in request.placement.host_resources)
    capabilities = {"drop": ["ALL"]} | ({"add": ["IPC_LOCK"]} if rdma else {})
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": capabilities,
    }


def unpack_container(request: Request) -> dict[str, Any]:
    """The step that lays out the code; what it asks for is no more than its agent does, so it adds nothing."""
    asked = {k: v for k, v in host_resources(request).items() if k in ("cpu", "memory")}
    container = {
        "name": UNPACK,
        "image": request.image,
        "command": unpack_command(request),
        "env": common_env(request),
        "envFrom": env_from(request),
        "resources": resources(asked),
        "securityContext": container_security(request),
        "volumeMounts": [
            *mounts(*SCRATCH),
            *data(request),
        ],
    }
    return without_empty(container)


def agent_container(request: Request, host_name: HostName | None, agent: str) -> dict[str, Any]:
    """The agent and, below it, the workers of this host."""
    asked = resources(host_resources(request))
    if request.placement.claims:
        asked["claims"] = [{"name": name} for name in request.placement.claims]
    container = {
        "name": agent,
        "image": request.image,
        "command": agent_command(request),
        "workingDir": RUN,
        "env": [*common_env(request), *agent_env(request, host_name)],
        "envFrom": env_from(request),
        "ports": [{"name": "agent", "containerPort": request.context.port}],
        "resources": asked,
        "securityContext": container_security(request),
        "volumeMounts": [*mounts(*SCRATCH, ("shm", "/dev/shm")), *data(request)],
    }
    return without_empty(container)


def resources(asked: dict[str, str]) -> dict[str, Any]:
    """Requests and limits; no limit on CPUs, which would throttle a data loader on an idle machine."""
    limits = {name: amount for name, amount in asked.items() if name != "cpu"}
    return without_empty({"requests": asked, "limits": limits})


def common_env(request: Request) -> list[dict[str, Any]]:
    """What Python and torch need of a user who is in no password file."""
    env = {"HOME": HOME, "USER": "tradewind", "PYTHONUNBUFFERED": "1"}
    if request.context.blobs:
        env[names.ENV_BLOBS] = request.context.blobs
    return [{"name": name, "value": value} for name, value in env.items()]


def agent_env(request: Request, host_name: HostName | None) -> list[dict[str, Any]]:
    """Who this host is and where the others are, if the pods have an index and names."""
    env = {}
    if request.gang == "barrier":
        env[names.ENV_START_DEADLINE] = str(request.context.start_deadline_s)
    found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in env.items()]
    if host_name is None:
        return found
    hosts = (f"{host_name(index)}:{request.context.port}" for index in range(request.spec.hosts))
    return [
        *found,
        {"name": names.ENV_HOSTS, "value": ",".join(hosts)},
        {"name": names.ENV_HOST, "valueFrom": {"fieldRef": {"fieldPath": INDEX}}},
        {"name": names.ENV_ADDRESS, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": names.ENV_TOKEN, "valueFrom": {"secretKeyRef": {"name": request.object_name, "key": TOKEN}}},
    ]


def checkpoints(request: Request) -> str | None:
    """Where checkpoints lie: on a volume that outlives the pod, if the run or the context names one."""
    root = request.context.run_root
    if request.spec.checkpoint_dir:
        return request.spec.checkpoint_dir
    return f"{root.rstrip('/')}/{request.run}/{names.CHECKPOINTS_DIR}" if root else None


def env_from(request: Request) -> list[dict[str, Any]]:
    """Credentials, out of Secrets and never out of manifests."""
    return [{"secretRef": {"name": name}} for name in request.context.secrets]


def mounts(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    """Where volumes appear."""
    return [{"name": name, "mountPath": path} for name, path in pairs]


def data(request: Request) -> list[dict[str, Any]]:
    """The context's own volumes."""
    return [
        without_empty({"name": f"data-{i}", "mountPath": v.path, "readOnly": v.read_only or None})
        for i, v in enumerate(request.context.volumes)
    ]


def volumes(request: Request) -> list[dict[str, Any]]:
    """Code as it came and as it is laid out, scratch space, shared memory, and the context's volumes."""
    size = shared_memory(request)
    shm = {"medium": "Memory"} | ({"sizeLimit": size} if size else {})
    claims = [
        {"name": f"data-{i}", "persistentVolumeClaim": {"claimName": v.claim}}
        for i, v in enumerate(request.context.volumes)
    ]
    return [
        {"name": "parts", "projected": {"sources": sources([request.object_name, *request.code.names])}},
        {"name": "shm", "emptyDir": shm},
        *({"name": name, "emptyDir": {}} for name in ("run", "home", "tmp")),
        *claims,
    ]


def sources(config_maps: Sequence[str]) -> list[dict[str, Any]]:
    """All files of several ConfigMaps in one folder."""
    return [{"configMap": {"name": name}} for name in dict.fromkeys(config_maps)]
