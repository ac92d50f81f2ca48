"""Jobs that run and cannot meet, and jobs that are over."""

import json
from typing import Any

import pytest

from tests.launch.why.scenarios.recorded import condition, dump, job, node, pod
from tradewind.launch.why import Cause, decode_dump, explain


def first(*objects: Any, **changed: Any) -> Cause:
    told = job(2, **changed.pop("spec", {})) | changed
    pods = [pod(index, {"phase": "Running"}, nodeName="a") for index in range(2)]
    for each in pods:
        each["metadata"]["labels"] = {"app": "train"}
    world = decode_dump(json.dumps(dump(told, node("a"), *pods, *objects)).encode(), "d")
    return explain(world, "job/train").causes[0]


def policy(name: str, *ingress: Any, types: tuple[str, ...] = ("Ingress",), app: str = "train") -> Any:
    spec = {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": types, "ingress": list(ingress)}
    return {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "team"}, "spec": spec}


PEERS = {"from": [{"podSelector": {"matchLabels": {"app": "train"}}}]}
OTHERS = {"from": [{"podSelector": {"matchLabels": {"app": "metrics"}}}]}


@pytest.mark.parametrize(
    ("policies", "code"),
    [
        ([policy("deny")], "rendezvous"),
        ([policy("metrics", OTHERS)], "rendezvous"),
        ([policy("deny"), policy("peers", PEERS)], "running"),
        ([policy("anyone", {})], "running"),
        ([policy("namespaces", {"from": [{"namespaceSelector": {}}]})], "running"),
        ([policy("out", types=("Egress",))], "running"),
        ([policy("elsewhere", app="serving")], "running"),
    ],
)
def test_policies_add_up(policies: list[Any], code: str) -> None:
    """Pods are kept apart only if a policy governs them and none lets their peers in."""
    assert first(*policies).code == code


@pytest.mark.parametrize(("service", "code"), [("train", "running"), ("serving", "rendezvous")])
def test_the_service_of_the_subdomain(service: str, code: str) -> None:
    """Names of pods resolve by the Service that their subdomain names, if the dump shows Services at all."""
    told = job(2)["spec"]
    told["template"]["spec"]["subdomain"] = "train"
    there = {"kind": "Service", "metadata": {"name": service, "namespace": "team"}}
    assert first(there, spec=told).code == code
    assert first(spec=told).code == "running"


@pytest.mark.parametrize(
    ("type", "reason", "code"),
    [
        ("Complete", "CompletionsReached", "completed"),
        ("Failed", "DeadlineExceeded", "deadline"),
        ("Failed", "BackoffLimitExceeded", "backoff-limit"),
        ("FailureTarget", "PodFailurePolicy", "user-error"),
        ("Failed", "SomethingNew", "unknown"),
    ],
)
def test_how_a_job_ended(type: str, reason: str, code: str) -> None:
    """The condition that ended a job is named, whatever its pods still say."""
    assert first(status={"failed": 2, "conditions": [condition(type, "True", reason, "")]}).code == code
