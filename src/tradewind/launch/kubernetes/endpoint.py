"""The objects of an endpoint, as plain data: made from what is asked for alone, the same ones every time."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tradewind import names
from tradewind.launch.kubernetes import unpack
from tradewind.launch.kubernetes.endpoint_request import Endpoint, config_map_name, labels, selector
from tradewind.launch.kubernetes.manifests import Manifest
from tradewind.launch.kubernetes.pod import without_empty
from tradewind.launch.kubernetes.replica import PORT, START_S, pod_spec


def endpoint_manifests(endpoint: Endpoint) -> list[Manifest]:
    """Everything that an endpoint is, in the order in which it can be made, the Deployment last."""
    code = endpoint.model.code
    found = [config_map(endpoint), *parts(endpoint)] if code else []
    found += [service(endpoint), disruption_budget(endpoint), network_policy(endpoint)]
    found += optional(endpoint)
    return [*found, deployment(endpoint)]


def optional(endpoint: Endpoint) -> Iterator[Manifest]:
    """What not every endpoint asks for, or not every cluster has."""
    if endpoint.spec.scaling:
        yield autoscaler(endpoint)
    if endpoint.spec.route:
        yield http_route(endpoint)
    if endpoint.capabilities.pod_monitor:
        yield pod_monitor(endpoint)


def head(api_version: str, kind: str, endpoint: Endpoint) -> Manifest:
    """What every object of the endpoint begins with."""
    about = {"name": endpoint.name, "labels": labels(endpoint)}
    return {"apiVersion": api_version, "kind": kind, "metadata": about}


def config_map(endpoint: Endpoint) -> Manifest:
    """What the package is made of, and the program that lays it out."""
    code = endpoint.model.code
    assert code is not None, "asked of packages that travel by content"
    about = {"digest": code.digest, "layers": code.layers, "max_bytes": code.max_bytes}
    data = {
        "snapshot.json": json.dumps(about, indent=1, sort_keys=True),
        "unpack.py": Path(unpack.__file__).read_text(encoding="utf-8"),
    }
    found = head("v1", "ConfigMap", endpoint)
    found["metadata"]["name"] = config_map_name(endpoint)
    return found | {"immutable": True, "data": data}


def parts(endpoint: Endpoint) -> Iterator[Manifest]:
    """What the package's bytes are in."""
    code = endpoint.model.code
    for name, data in code.parts.items() if code else ():
        found = head("v1", "ConfigMap", endpoint)
        found["metadata"]["name"] = name
        yield found | {"immutable": True, "binaryData": {name: base64.b64encode(data).decode()}}


def service(endpoint: Endpoint) -> Manifest:
    """One address for all replicas that are ready."""
    port = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
    spec = {"selector": selector(endpoint)["matchLabels"], "ports": [port]}
    return head("v1", "Service", endpoint) | {"spec": spec}


def disruption_budget(endpoint: Endpoint) -> Manifest:
    """Drained nodes take one replica after another."""
    spec = {"maxUnavailable": 1, "selector": selector(endpoint), "unhealthyPodEvictionPolicy": "AlwaysAllow"}
    return head("policy/v1", "PodDisruptionBudget", endpoint) | {"spec": spec}


def network_policy(endpoint: Endpoint) -> Manifest:
    """Requests come in at the one port; nothing goes out, unless the package or a Secret's store lies elsewhere."""
    spec: dict[str, Any] = {
        "podSelector": selector(endpoint),
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": "http", "protocol": "TCP"}]}],
    }
    if not reaches_out(endpoint):
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": []}
    return head("networking.k8s.io/v1", "NetworkPolicy", endpoint) | {"spec": spec}


def reaches_out(endpoint: Endpoint) -> bool:
    """Whether a replica may have to call somebody."""
    code = endpoint.model.code
    told = bool(endpoint.spec.env_secrets) or endpoint.spec.endpoint is not None
    return told or (code is not None and not code.layers)


def autoscaler(endpoint: Endpoint) -> Manifest:
    """More replicas at once, fewer only after a calm."""
    scaling = endpoint.spec.scaling
    assert scaling is not None, "the caller looked"
    metrics: list[dict[str, Any]] = []
    if scaling.cpu_percent is not None:
        target = {"type": "Utilization", "averageUtilization": scaling.cpu_percent}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if scaling.in_flight is not None:
        value = {"type": "AverageValue", "averageValue": str(scaling.in_flight)}
        metrics.append(
            {"type": "Pods", "pods": {"metric": {"name": "tradewind_requests_in_flight"}, "target": value}}
        )
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": endpoint.name},
        "minReplicas": endpoint.spec.replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": metrics,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": scaling.calm_s}},
    }
    return head("autoscaling/v2", "HorizontalPodAutoscaler", endpoint) | {"spec": spec}


def http_route(endpoint: Endpoint) -> Manifest:
    """The way in from outside."""
    route = endpoint.spec.route
    assert route is not None, "the caller looked"
    namespace, _, name = route.gateway.rpartition("/")
    parent = without_empty({"name": name, "namespace": namespace})
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": route.prefix}}],
        "backendRefs": [{"name": endpoint.name, "port": 80}],
    }
    spec = without_empty({"parentRefs": [parent], "hostnames": list(route.hostnames), "rules": [rule]})
    return head("gateway.networking.k8s.io/v1", "HTTPRoute", endpoint) | {"spec": spec}


def pod_monitor(endpoint: Endpoint) -> Manifest:
    """How a Prometheus operator finds the replicas' metrics."""
    scrape = {"port": "http", "path": "/metrics", "scheme": endpoint.spec.scheme}
    spec = {"selector": selector(endpoint), "podMetricsEndpoints": [scrape]}
    return head("monitoring.coreos.com/v1", "PodMonitor", endpoint) | {"spec": spec}


def deployment(endpoint: Endpoint) -> Manifest:
    """The replicas; a new one is ready before an old one goes. An autoscaler has their number to itself."""
    spec = {
        "selector": selector(endpoint),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": START_S + 60,
        "revisionHistoryLimit": 3,
        "template": {"metadata": template_metadata(endpoint), "spec": pod_spec(endpoint)},
    }
    if endpoint.spec.scaling is None:
        spec["replicas"] = endpoint.spec.replicas
    found = head("apps/v1", "Deployment", endpoint)
    found["metadata"]["annotations"] = {names.ANNOTATION_MODEL: endpoint.model.label}
    return found | {"spec": spec}


def template_metadata(endpoint: Endpoint) -> dict[str, Any]:
    """Labels of the pods, and what Prometheus without an operator goes by."""
    scrape = {"scrape": "true", "port": str(PORT), "path": "/metrics", "scheme": endpoint.spec.scheme}
    annotations = {f"prometheus.io/{key}": value for key, value in scrape.items()}
    return {
        "labels": labels(endpoint),
        "annotations": annotations | {names.ANNOTATION_MODEL: endpoint.model.label},
    }
