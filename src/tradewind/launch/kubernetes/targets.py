"""The same run for operators that a cluster may have: JobSet, Kubeflow Trainer, KubeRay."""

from collections.abc import Callable
from typing import Any

from tradewind.errors import SpecError
from tradewind.launch.kubernetes.manifests import (
    Manifest,
    config_maps,
    head,
    job_spec,
    kueue_labels,
    manifests,
    pod_group,
)
from tradewind.launch.kubernetes.pod import PARTS, HostName, pod_template
from tradewind.launch.kubernetes.request import Request

TRAINER_STEP = "trainer.kubeflow.org/trainjob-ancestor-step"


def render(target: str, request: Request) -> list[Manifest]:
    """The objects of a run for one of `TARGETS`; raises SpecError for another one."""
    if target not in TARGETS:
        raise SpecError(f"--target {target}: there is no such target; use one of {', '.join(TARGETS)}")
    return TARGETS[target](request)


def job_set(request: Request) -> list[Manifest]:
    """A JobSet of one Indexed Job; JobSet makes the headless Service itself."""
    found = head("jobset.x-k8s.io/v1alpha2", "JobSet", request)
    found["metadata"]["labels"] |= kueue_labels(request)
    found["spec"] = job_set_spec(request, "host", "agent") | {"suspend": bool(request.placement.queue)}
    if request.context.keep_s is not None:
        found["spec"]["ttlSecondsAfterFinished"] = request.context.keep_s
    return [*around(request), found]


def job_set_spec(request: Request, group: str, container: str) -> dict[str, Any]:
    """One replicated Job for all hosts; a Job that failed has used up its hosts' tries, so nothing restarts."""
    template = pod_template(request, host_of(request, group), container)
    del template["spec"]["subdomain"]
    job: dict[str, Any] = {"spec": job_spec(request) | {"template": template}}
    return {
        "network": {
            "enableDNSHostnames": True,
            "subdomain": request.object_name,
            "publishNotReadyAddresses": True,
        },
        "failurePolicy": {"maxRestarts": 0},
        "replicatedJobs": [{"name": group, "replicas": 1, "template": job}],
    }


def host_of(request: Request, group: str) -> HostName:
    """How JobSet names the hosts of its one Job."""
    return lambda index: f"{request.object_name}-{group}-0-{index}.{request.object_name}"


def train_job(request: Request) -> list[Manifest]:
    """A TrainJob and the TrainingRuntime that it refers to; the trainer's container must be called `node`."""
    runtime = head("trainer.kubeflow.org/v1alpha1", "TrainingRuntime", request)
    spec = job_set_spec(request, "node", "node")
    spec["replicatedJobs"][0]["template"]["metadata"] = {"labels": {TRAINER_STEP: "trainer"}}
    runtime["spec"] = {"mlPolicy": {"numNodes": request.spec.hosts}, "template": {"spec": spec}}
    found = head("trainer.kubeflow.org/v1alpha1", "TrainJob", request)
    found["metadata"]["labels"] |= kueue_labels(request)
    found["spec"] = {
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "TrainingRuntime",
            "name": request.object_name,
        },
        "trainer": {"image": request.image, "numNodes": request.spec.hosts},
        "suspend": bool(request.placement.queue),
    }
    return [*around(request), runtime, found]


def ray_job(request: Request) -> list[Manifest]:
    """A RayJob on a cluster of its own: a head, and one Ray worker for each host of the run."""
    found = head("ray.io/v1", "RayJob", request)
    found["metadata"]["labels"] |= kueue_labels(request)
    found["spec"] = {
        "entrypoint": " ".join(ray_entrypoint(request)),
        "shutdownAfterJobFinishes": True,
        "backoffLimit": 0,
        "suspend": bool(request.placement.queue),
        "rayClusterSpec": {"headGroupSpec": ray_head(request), "workerGroupSpecs": [ray_workers(request)]},
    }
    if request.context.keep_s is not None:
        found["spec"]["ttlSecondsAfterFinished"] = request.context.keep_s
    return [*config_maps(request), found]


def ray_entrypoint(request: Request) -> list[str]:
    """The driver, which places one agent on each Ray worker."""
    return [request.context.python, "-P", "-m", "tradewind.launch.ray", f"{PARTS}/run.json"]


def ray_head(request: Request) -> dict[str, Any]:
    """The head: the driver's place, and no worker's."""
    template = ray_template(request, "ray-head")
    container = template["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    template["spec"].pop("resourceClaims", None)
    return {"rayStartParams": {"num-cpus": "0", "num-gpus": "0"}, "template": template}


def ray_workers(request: Request) -> dict[str, Any]:
    """As many Ray workers as the run has hosts, no more and no fewer."""
    hosts = request.spec.hosts
    return {
        "groupName": "hosts",
        "replicas": hosts,
        "minReplicas": hosts,
        "maxReplicas": hosts,
        "rayStartParams": {},
        "template": ray_template(request, "ray-worker"),
    }


def ray_template(request: Request, container: str) -> dict[str, Any]:
    """A pod in which Ray, started by KubeRay, takes the agent's place."""
    template = pod_template(request, None, container)
    for field in ("subdomain", "restartPolicy", "schedulingGroup"):
        template["spec"].pop(field, None)
    main = template["spec"]["containers"][0]
    del main["command"], main["ports"]
    return template


def around(request: Request) -> list[Manifest]:
    """What a run needs beside the operator's own object."""
    groups = [pod_group(request)] if request.gang == "native" else []
    return [*config_maps(request), *groups]


TARGETS: dict[str, Callable[[Request], list[Manifest]]] = {
    "k8s": manifests,
    "jobset": job_set,
    "trainjob": train_job,
    "rayjob": ray_job,
}
