"""A replica of an endpoint: its pod, from what is asked for."""

import math
from typing import Any

from tradewind import names
from tradewind.launch.kubernetes import model as models
from tradewind.launch.kubernetes.endpoint_request import Endpoint, config_map_name, selector
from tradewind.launch.kubernetes.model import MOUNT
from tradewind.launch.kubernetes.pod import (
    HOME,
    PARTS,
    ROOT,
    pod_security,
    resources,
    toleration,
    without_empty,
)
from tradewind.launch.kubernetes.request import cpus, gib
from tradewind.spec import MountedSecret

PORT = 8080
CONTAINER = "server"
SETTINGS = f"{ROOT}/endpoint"
"""Where the Secret with the endpoint's file is."""
PRE_STOP_S = 5
"""How long a replica that is to end goes on as before, until nothing is sent to it any more."""
DRAIN_S = 35
"""What the server then needs at most to answer what is in flight (see `tradewind.serve.server`)."""
START_S = 600
"""How long a replica may take to load its model before it is started again."""


def pod_spec(endpoint: Endpoint) -> dict[str, Any]:
    """A replica; replicas spread over hosts and zones as well as they can."""
    placement, gpu_type = endpoint.placement, endpoint.spec.resources.gpu_type
    wanted = {endpoint.context.gpu_label: gpu_type} if gpu_type else {}
    code = endpoint.model.code
    spec = {
        "terminationGracePeriodSeconds": PRE_STOP_S + DRAIN_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": placement.service_account,
        "priorityClassName": placement.priority_class,
        "imagePullSecrets": [{"name": name} for name in placement.image_pull_secrets],
        "nodeSelector": wanted | placement.node_selector,
        "tolerations": [toleration(item) for item in placement.tolerations],
        "topologySpreadConstraints": [
            spread(endpoint, key) for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "securityContext": pod_security(endpoint.context.user_id),
        "initContainers": [layout_container(endpoint)] if code else [],
        "containers": [server_container(endpoint)],
        "volumes": [
            *models.volumes(endpoint.model, config_map_name(endpoint), endpoint.context),
            *({"name": name, "emptyDir": {}} for name in ("home", "tmp")),
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            *(
                {"name": f"secret-{i}", "secret": {"secretName": s.secret}}
                for i, s in enumerate(mounted(endpoint))
            ),
        ],
    }
    return without_empty(spec)


def spread(endpoint: Endpoint, key: str) -> dict[str, Any]:
    """Evenly over the values of a node label, where that can be had."""
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector(endpoint),
    }


SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def layout_container(endpoint: Endpoint) -> dict[str, Any]:
    """The step that lays out the package: the program that came with it, else a fetch from the blob store."""
    code, python = endpoint.model.code, endpoint.context.python
    assert code is not None, "the caller looked"
    by_parts = [python, "-I", f"{PARTS}/unpack.py", PARTS, MOUNT, "/tmp/none"]
    fetched = [python, "-P", "-m", "tradewind.launch.kubernetes.fetch", code.digest, MOUNT, "/tmp/none"]
    container = {
        "name": "model",
        "image": endpoint.image,
        "command": by_parts if code.layers else fetched,
        "env": common_env(endpoint),
        "envFrom": env_from(endpoint),
        "resources": resources({k: v for k, v in asked(endpoint).items() if k in ("cpu", "memory")}),
        "securityContext": SECURITY,
        "volumeMounts": [
            {"name": "parts", "mountPath": PARTS},
            {"name": "model", "mountPath": MOUNT},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return without_empty(container)


def server_container(endpoint: Endpoint) -> dict[str, Any]:
    """The server. Before it is told to end it goes on for a while, as balancers hear of it only then."""
    container = {
        "name": CONTAINER,
        "image": endpoint.image,
        "command": command(endpoint),
        "env": common_env(endpoint),
        "envFrom": env_from(endpoint),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": resources(asked(endpoint)),
        "startupProbe": probe(endpoint, "ready", every_s=2, failures=math.ceil(START_S / 2)),
        "readinessProbe": probe(endpoint, "ready", every_s=2, failures=2),
        "livenessProbe": probe(endpoint, "live", every_s=10, failures=3),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "securityContext": SECURITY,
        "volumeMounts": [
            *models.mounts(endpoint.model, endpoint.context),
            *({"name": n, "mountPath": p} for n, p in (("home", HOME), ("tmp", "/tmp"), ("shm", "/dev/shm"))),
            *(
                {"name": f"secret-{i}", "mountPath": s.path, "readOnly": True}
                for i, s in enumerate(mounted(endpoint))
            ),
        ],
    }
    return without_empty(container)


def mounted(endpoint: Endpoint) -> list[MountedSecret]:
    """The Secrets that are folders of a replica, that of the endpoint's file last."""
    of_file = endpoint.spec.endpoint
    settings = [] if of_file is None else [MountedSecret(secret=of_file.secret, path=SETTINGS)]
    return [*endpoint.spec.secrets, *settings]


def command(endpoint: Endpoint) -> list[str]:
    """`tradewind serve`, as the image's Python has it."""
    spec = endpoint.spec
    latency = f"p{spec.slo.percentile:g}<{spec.slo.latency_ms:g}ms"
    flags = {"--host": "0.0.0.0", "--port": str(PORT), "--slo": latency, "--workers": str(spec.workers)}
    if spec.endpoint is not None:
        flags["--settings"] = f"{SETTINGS}/{spec.endpoint.key}"
    given = [part for pair in flags.items() for part in pair]
    return [
        endpoint.context.python,
        "-P",
        "-m",
        "tradewind",
        "serve",
        endpoint.model.path,
        *given,
        *spec.args,
    ]


def asked(endpoint: Endpoint) -> dict[str, str]:
    """What a replica asks for, by the cluster's names."""
    need = endpoint.spec.resources
    found = {}
    if need.cpus is not None:
        found["cpu"] = cpus(need.cpus)
    if need.memory_gib is not None:
        found["memory"] = gib(need.memory_gib)
    if need.gpus:
        vendor = endpoint.context.gpu_resource.partition("/")[0]
        found[f"{vendor}/mig-{need.mig}" if need.mig else endpoint.context.gpu_resource] = str(need.gpus)
    return found | {name: str(count) for name, count in endpoint.placement.host_resources.items()}


def probe(endpoint: Endpoint, what: str, *, every_s: int, failures: int) -> dict[str, Any]:
    """One question to the server's health."""
    get = {"path": f"/v2/health/{what}", "port": "http", "scheme": endpoint.spec.scheme.upper()}
    return {"httpGet": get, "periodSeconds": every_s, "failureThreshold": failures, "timeoutSeconds": 5}


def common_env(endpoint: Endpoint) -> list[dict[str, Any]]:
    """What Python needs of a user who is in no password file."""
    env = {"HOME": HOME, "USER": "tradewind", "PYTHONUNBUFFERED": "1"}
    if endpoint.context.blobs and endpoint.model.code and not endpoint.model.code.layers:
        env[names.ENV_BLOBS] = endpoint.context.blobs
    return [{"name": name, "value": value} for name, value in env.items()]


def env_from(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Credentials, out of Secrets and never out of manifests; the context's only to fetch a package."""
    code = endpoint.model.code
    fetches = code is not None and not code.layers
    secrets = [*endpoint.spec.env_secrets, *(endpoint.context.secrets if fetches else ())]
    return [{"secretRef": {"name": name}} for name in secrets]
