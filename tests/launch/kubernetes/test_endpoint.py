"""Endpoints: what is asked for, that a real API server takes every object of it, and making and taking them away."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.launch.kubernetes.builders import IMAGE, PLAIN, code, context
from tests.services.kubernetes import ControlPlane
from tradewind.cli.main import invoke
from tradewind.errors import SpecError
from tradewind.launch.kubernetes.context import Volume
from tradewind.launch.kubernetes.endpoint import endpoint_manifests
from tradewind.launch.kubernetes.endpoint_request import Endpoint, endpoint_name, make_endpoint
from tradewind.launch.kubernetes.model import Model, find_model
from tradewind.launch.kubernetes.replica import DRAIN_S, PRE_STOP_S
from tradewind.launch.kubernetes.request import Capabilities
from tradewind.serve import server
from tradewind.spec import (
    DeploymentSpec,
    EndpointSecret,
    MountedSecret,
    Placement,
    Resources,
    Route,
    Scaling,
    Toleration,
)
from tradewind.store import open_blobs, open_store

RBAC = Path(__file__).parents[3] / "deploy/kubernetes/rbac.yaml"
SHARED = context(
    volumes=(Volume(claim="models", path="/models"),), blobs="s3://bucket/blobs", secrets=("store",)
)
RICH = DeploymentSpec(
    model="volume:/models/ranker",
    workers=2,
    args=("--candidates", "100"),
    replicas=3,
    scaling=Scaling(max_replicas=9, cpu_percent=60, in_flight=20),
    resources=Resources(cpus=2, memory_gib=4, gpus=1, gpu_type="L4"),
    placement=Placement(
        image=IMAGE,
        image_pull_secrets=("registry",),
        tolerations=(Toleration(key="gpu"),),
        service_account="serving",
        priority_class="serving",
    ),
    secrets=(MountedSecret(secret="ranker-tls", path="/secrets/tls"),),
    env_secrets=("tracing",),
    endpoint=EndpointSecret(secret="ranker-endpoint"),
    scheme="https",
)
BY_CONTENT = Model(name="ranker", label="ranker@3", code=code())
BY_IMAGE = Model(name="ranker", label="r.example/ranker@sha256:00", image="r.example/ranker@sha256:00")
ON_VOLUME = Model(name="ranker", label="/models/ranker", path="/models/ranker")
BY_STORE = Model(name="ranker", label="ranker@3", code=msgspec.structs.replace(code(), layers=(), parts={}))


def endpoint(
    spec: DeploymentSpec | None = None,
    model: Model = BY_CONTENT,
    capabilities: Capabilities = PLAIN,
) -> Endpoint:
    """An endpoint, worked out."""
    return make_endpoint(spec or DeploymentSpec(model="ranker@3"), model, SHARED, capabilities)


ENDPOINTS = {
    "by content": endpoint(),
    "by image": endpoint(model=BY_IMAGE),
    "on a volume, with everything": endpoint(RICH, ON_VOLUME),
    "by the object store": endpoint(RICH, BY_STORE),
}


def by_kind(of: Endpoint) -> dict[str, dict[str, Any]]:
    """The objects, by kind; of ConfigMaps the last."""
    return {manifest["kind"]: manifest for manifest in endpoint_manifests(of)}


def pod(of: Endpoint) -> dict[str, Any]:
    """The pod of a replica."""
    spec: dict[str, Any] = by_kind(of)["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_real_api_server_takes_every_object(kubernetes: ControlPlane, name: str) -> None:
    """Server-side dry run with strict fields: nothing that is asked for is unknown or ill-formed."""
    for manifest in endpoint_manifests(ENDPOINTS[name]):
        taken = kubernetes.api.apply(manifest, "default", dry_run=True)
        assert taken["metadata"]["name"] == manifest["metadata"]["name"]


def test_a_replica_has_time_to_drain() -> None:
    """Its grace is the time before it hears of its end, and all that the server may then need."""
    found = pod(endpoint())
    (container,) = found["containers"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == PRE_STOP_S
    assert server.LINGER_S + server.DRAIN_S < DRAIN_S
    assert found["terminationGracePeriodSeconds"] == PRE_STOP_S + DRAIN_S


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_replica_may_do_nothing_but_serve(name: str) -> None:
    """Nobody's root, no token, a root file system that stays as it was, in every container."""
    found = pod(ENDPOINTS[name])
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["automountServiceAccountToken"] is False
    for container in [*found.get("initContainers", ()), *found["containers"]]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_health_is_asked_by_the_servers_own_scheme() -> None:
    """Start-up and readiness by `ready`, life by `live`."""
    (container,) = pod(endpoint(RICH, ON_VOLUME))["containers"]
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {kind: get["path"] for kind, get in asked.items()} == {
        "startup": "/v2/health/ready",
        "readiness": "/v2/health/ready",
        "liveness": "/v2/health/live",
    }
    assert {get["scheme"] for get in asked.values()} == {"HTTPS"}


def test_an_autoscaler_has_the_number_of_replicas_to_itself() -> None:
    """Applying the endpoint again does not undo what the autoscaler did."""
    found = by_kind(endpoint(RICH, ON_VOLUME))
    assert "replicas" not in found["Deployment"]["spec"]
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 9)
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource", "Pods"]
    assert by_kind(endpoint())["Deployment"]["spec"]["replicas"] == 2


def test_nothing_goes_out_that_need_not() -> None:
    """A package that comes by its content needs no network; one from an object store does."""
    assert by_kind(endpoint())["NetworkPolicy"]["spec"]["egress"] == []
    assert "egress" not in by_kind(endpoint(model=BY_STORE))["NetworkPolicy"]["spec"]
    told = DeploymentSpec(model="ranker@3", endpoint=EndpointSecret(secret="ranker-endpoint"))
    assert "egress" not in by_kind(endpoint(told))["NetworkPolicy"]["spec"]


def test_an_endpoints_file_comes_out_of_its_secret() -> None:
    """Mounted to be read alone, and named to the server; what is in it is in no manifest."""
    told = DeploymentSpec(
        model="ranker@3", endpoint=EndpointSecret(secret="ranker-endpoint", key="live.yaml")
    )
    found = pod(endpoint(told))
    (container,) = found["containers"]
    at = container["command"].index("--settings")
    path = Path(container["command"][at + 1])
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == str(path.parent)]
    assert (path.name, mount["readOnly"]) == ("live.yaml", True)
    (volume,) = [v for v in found["volumes"] if v["name"] == mount["name"]]
    assert volume["secret"] == {"secretName": "ranker-endpoint"}
    assert "--settings" not in pod(endpoint())["containers"][0]["command"]


def test_credentials_of_the_store_stay_with_who_fetches() -> None:
    """The context's Secrets reach a replica only where its package comes out of the blob store."""
    assert "envFrom" not in pod(endpoint())["containers"][0]
    fetched = [s["secretRef"]["name"] for s in pod(endpoint(model=BY_STORE))["initContainers"][0]["envFrom"]]
    assert fetched == ["store"]


def test_a_route_needs_the_gateway_api() -> None:
    """Without it the error says so; with it the route leads to the Service."""
    spec = DeploymentSpec(model="ranker@3", route=Route(gateway="edge/public", hostnames=("r.example",)))
    with pytest.raises(SpecError, match=r"route: .*gateway\.networking\.k8s\.io"):
        endpoint(spec)
    route = by_kind(endpoint(spec, capabilities=Capabilities(gateway=True)))["HTTPRoute"]["spec"]
    assert route["parentRefs"] == [{"name": "public", "namespace": "edge"}]
    assert route["rules"][0]["backendRefs"] == [{"name": "ranker", "port": 80}]


def test_a_prometheus_operator_is_told_where_it_is_there() -> None:
    """A PodMonitor is made only where the cluster knows the kind."""
    assert "PodMonitor" not in by_kind(endpoint())
    assert "PodMonitor" in by_kind(endpoint(capabilities=Capabilities(pod_monitor=True)))


@pytest.mark.parametrize(
    ("model", "name"), [("Ranker_v2", "ranker-v2"), ("3d", "model-3d"), ("x" * 99, "x" * 52), ("-", "model")]
)
def test_an_endpoint_is_named_after_its_model(model: str, name: str) -> None:
    """As a DNS label, whatever the model is called."""
    assert endpoint_name(model) == name


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"replicas": 3, "scaling": Scaling(max_replicas=2)}, "max_replicas: 2 is less than replicas 3"),
        ({"scaling": Scaling(max_replicas=2, cpu_percent=None)}, "cpu_percent or in_flight"),
        ({"scaling": Scaling(max_replicas=2), "resources": Resources()}, "resources.cpus"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], says: str) -> None:
    """The error names the field and what to say instead."""
    with pytest.raises(SpecError, match=says):
        DeploymentSpec(model="m", **fields)


def test_a_path_on_no_volume_is_refused(home: Path) -> None:
    """A model that pods cannot see is an error before anything is asked for."""
    with open_store() as store, pytest.raises(SpecError, match="on none of the context's volumes"):
        find_model("volume:/elsewhere/ranker", SHARED, store, open_blobs())


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that looks like a package from outside."""
    folder = tmp_path / "package"
    (folder / "weights").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"name": "ranker"}))
    (folder / "weights/rank.safetensors").write_bytes(bytes(range(256)) * 100)
    return folder


@pytest.fixture
def deployed(home: Path, kwok: ControlPlane, namespace: str) -> Iterator[str]:
    """A context for the test's namespace, on a node that kwok runs."""
    name = f"node-{namespace}"
    kwok.add_node(name, labels={"pool": name})
    about = {
        "kubeconfig": str(kwok.kubeconfig),
        "namespace": namespace,
        "placement": {"image": IMAGE, "node_selector": {"pool": name}},
    }
    (home / "contexts").mkdir(parents=True)
    (home / "contexts/test.yaml").write_text(json.dumps(about))
    yield "k8s:test"
    kwok.api.delete(f"/api/v1/nodes/{name}")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert invoke([*words, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_endpoint_comes_changes_and_goes(
    deployed: str, kwok: ControlPlane, namespace: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made with all that belongs to it, changed in place, listed, and gone with everything when it is taken away."""
    (made,) = said(capsys, "deploy", str(package), "--on", deployed, "--max-replicas", "4")
    assert (made["name"], made["state"], made["ready"]) == ("ranker", "serving", 2)
    scalers = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
    assert len(kwok.api.items(scalers)) == 1
    (changed,) = said(capsys, "deploy", str(package), "--on", deployed, "--replicas", "3")
    assert (changed["state"], changed["ready"]) == ("serving", 3)
    kwok.api.wait(scalers, lambda left: not left)  # The cluster takes away in its own time what was deleted.
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    (package / "weights/rank.safetensors").write_bytes(b"other")
    for replicas in range(1, 6):  # The Deployment could go back to three.
        (package / "weights/more.safetensors").write_bytes(b"other" * replicas)
        said(capsys, "deploy", str(package), "--on", deployed, "--replicas", "1")
    kwok.api.wait(maps, lambda kept: len(kept) <= 2 * 5, labelSelector="tradewind.dev/endpoint")
    (listed,) = said(capsys, "endpoints", "--on", deployed)
    assert (listed["name"], listed["model"]) == ("ranker", str(package))
    assert invoke(["undeploy", "ranker", "--on", deployed]) == 0
    owned = (
        ("/apis/apps/v1", "deployments"),
        ("/api/v1", "configmaps"),
        ("/api/v1", "services"),
        ("/apis/networking.k8s.io/v1", "networkpolicies"),
    )
    for root, kind in owned:
        kwok.api.wait(
            f"{root}/namespaces/{namespace}/{kind}",
            lambda left: not left,
            labelSelector="tradewind.dev/endpoint",
        )
    assert invoke(["undeploy", "ranker", "--on", deployed]) == 3
    assert "there is no endpoint ranker" in capsys.readouterr().err


def test_a_stranger_of_that_name_is_left_alone(
    deployed: str, kwok: ControlPlane, namespace: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Deployment that is somebody else's is neither changed nor taken away."""
    labels = {"app": "ranker"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    stranger = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ranker"}, "spec": spec}
    kwok.api.create(stranger, namespace)
    assert invoke(["deploy", str(package), "--on", deployed]) == 1
    assert "no endpoint of Tradewind" in capsys.readouterr().err
    assert invoke(["undeploy", "ranker", "--on", deployed]) == 3


def test_the_deployers_role_suffices(
    deployed: str, home: Path, kwok: ControlPlane, namespace: str, package: Path
) -> None:
    """With nothing but the Role in deploy/, an endpoint is made, changed, listed and taken away."""
    (role,) = [
        m for m in yaml.safe_load_all(RBAC.read_text()) if m["metadata"]["name"] == "tradewind-deployer"
    ]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ci"}}
    binding = {
        "apiVersion": role["apiVersion"],
        "kind": "RoleBinding",
        "metadata": {"name": "ci"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tradewind-deployer"},
        "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": namespace}],
    }
    for manifest in (role, account, binding):
        kwok.api.create(manifest, namespace)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/ci/token"
    token = kwok.api.call("POST", path, asked)["status"]["token"]
    config = yaml.safe_load(kwok.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (home / "ci.kubeconfig").write_text(yaml.safe_dump(config))
    file = home / "contexts/test.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"kubeconfig": str(home / "ci.kubeconfig")}))
    for flags in (["--max-replicas", "3"], ["--replicas", "1"]):
        assert invoke(["deploy", str(package), "--on", deployed, *flags]) == 0
    assert invoke(["endpoints", "--on", deployed]) == 0
    assert invoke(["undeploy", "ranker", "--on", deployed]) == 0


def test_manifests_are_printed_without_a_cluster(
    home: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`deploy --dry-run` and `render` of a file that names a model print the same, the package included."""
    (tmp_path / "ranker.yaml").write_text(
        yaml.safe_dump({"model": str(package), "placement": {"image": IMAGE}})
    )
    assert invoke(["deploy", str(package), "--image", IMAGE, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert invoke(["render", str(tmp_path / "ranker.yaml")]) == 0
    assert capsys.readouterr().out == printed
    kinds = [found["kind"] for found in yaml.safe_load_all(printed)]
    assert kinds[-1] == "Deployment"
    assert kinds.count("ConfigMap") == 2
