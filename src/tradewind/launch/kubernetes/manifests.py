"""The objects of a run, as plain data: made from a request alone, the same ones every time."""

import base64
import json
from pathlib import Path
from typing import Any

from tradewind import names
from tradewind.launch.kubernetes import unpack
from tradewind.launch.kubernetes.pod import TOKEN, labels, pod_template, without_empty
from tradewind.launch.kubernetes.request import Request
from tradewind.names import ExitCode

Manifest = dict[str, Any]
CODE_FORMAT = "1"
WIND_UP_S = 20
"""Of a pod's grace the part that its agent keeps for itself, after its workers have checkpointed or not."""
FINAL = (ExitCode.USAGE, ExitCode.NOT_FOUND, ExitCode.REFUSED, ExitCode.DO_NOT_RETRY, ExitCode.INTERRUPTED)
"""Exits of an agent after which another try would end alike, or was not wanted."""


def manifests(request: Request) -> list[Manifest]:
    """Everything that is created for a run but its Secret, in the order in which it can be, the Job last."""
    found = [*config_maps(request), service(request)]
    if request.gang == "native":
        found.append(pod_group(request))
    return [*found, job(request)]


def config_maps(request: Request) -> list[Manifest]:
    """The run's own words, and the parts of its newest layer of code."""
    return [run_config(request), *(part(name, data) for name, data in request.code.parts.items())]


def run_config(request: Request) -> Manifest:
    """What an agent has to know of the run, what its code is made of, and the program that lays it out."""
    code = request.code
    run = {
        "id": request.run,
        "name": request.name,
        "created_s": request.created_s,
        "snapshot": code.digest,
        "spec": {**request.stored, "grace_s": request.grace_s - WIND_UP_S},
    }
    snapshot = {"digest": code.digest, "layers": code.layers, "max_bytes": code.max_bytes}
    data = {
        "run.json": json.dumps(run, indent=1, sort_keys=True),
        "snapshot.json": json.dumps(snapshot, indent=1, sort_keys=True),
        "unpack.py": Path(unpack.__file__).read_text(encoding="utf-8"),
    }
    return head("v1", "ConfigMap", request) | {"immutable": True, "data": data}


def part(name: str, data: bytes) -> Manifest:
    """One part of some snapshot: it belongs to every run that needs it."""
    marks = {names.LABEL_MANAGED_BY: names.FIELD_MANAGER, names.LABEL_CODE: CODE_FORMAT}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": marks},
        "immutable": True,
        "binaryData": {name: base64.b64encode(data).decode()},
    }


def head(api_version: str, kind: str, request: Request) -> Manifest:
    """What every object of the run begins with."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": request.object_name, "labels": labels(request)},
    }


def token_secret(request: Request, token: str) -> Manifest:
    """The secret by which the run's agents know each other; never part of what is printed."""
    return head("v1", "Secret", request) | {"immutable": True, "stringData": {TOKEN: token}}


def service(request: Request) -> Manifest:
    """Names for the hosts, also before they are ready: they have to find each other to become so."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {names.LABEL_RUN: request.run},
        "ports": [{"name": "agent", "port": request.context.port}],
    }
    return head("v1", "Service", request) | {"spec": spec}


def pod_group(request: Request) -> Manifest:
    """All hosts or none, by Kubernetes' own scheduler; a higher priority takes all of them or none."""
    topology = request.placement.topology
    spec = {
        "schedulingPolicy": {"gang": {"minCount": request.spec.hosts}},
        "disruptionMode": {"all": {}},
        "priorityClassName": request.placement.priority_class,
        "schedulingConstraints": {"topology": [{"key": topology}]} if topology else None,
    }
    return head("scheduling.k8s.io/v1beta1", "PodGroup", request) | {"spec": without_empty_values(spec)}


def without_empty_values(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are set; an empty object is set."""
    return {key: value for key, value in fields.items() if value is not None}


def job(request: Request) -> Manifest:
    """The Indexed Job: host `i` is its index `i`, replaced alone when it is lost."""
    found = head("batch/v1", "Job", request)
    found["metadata"]["labels"] |= kueue_labels(request)
    spec = job_spec(request) | {"suspend": bool(request.placement.queue)}
    if request.context.keep_s is not None:
        spec["ttlSecondsAfterFinished"] = request.context.keep_s
    template = pod_template(request, lambda index: f"{request.object_name}-{index}.{request.object_name}")
    return found | {"spec": spec | {"template": template}}


def kueue_labels(request: Request) -> dict[str, str]:
    """What Kueue reads."""
    fields = {
        "kueue.x-k8s.io/queue-name": request.placement.queue,
        "kueue.x-k8s.io/priority-class": request.placement.queue_priority,
    }
    return without_empty(fields)


def job_spec(request: Request) -> dict[str, Any]:
    """How hosts are made and replaced.

    A host is replaced once the lost one is really gone, so that two never write as one. Each index has its
    own tries; when one has used them up the run fails, because a group cannot go on without a host.
    """
    hosts = request.spec.hosts
    return {
        "completionMode": "Indexed",
        "completions": hosts,
        "parallelism": hosts,
        "backoffLimitPerIndex": request.spec.max_restarts,
        "maxFailedIndexes": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": failure_rules()},
    }


def failure_rules() -> list[dict[str, Any]]:
    """What a host's end means; the first rule that fits counts, and without one it uses up a try."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": sorted(int(c) for c in FINAL)}},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [int(ExitCode.REQUEUE)]}},
    ]
