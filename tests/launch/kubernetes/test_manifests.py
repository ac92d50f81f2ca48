"""Manifests: what a run's request becomes, and that a real API server takes every one of them."""

from typing import Any

import msgspec
import pytest

from tests.launch.kubernetes.builders import IMAGE, context, request
from tests.services.kubernetes import ControlPlane
from tradewind import names
from tradewind.agent.job import job_of
from tradewind.errors import SpecError
from tradewind.launch.kubernetes.context import Context, Volume
from tradewind.launch.kubernetes.manifests import manifests
from tradewind.launch.kubernetes.request import Capabilities, Request, grace_s, object_name
from tradewind.launch.kubernetes.targets import TARGETS, render
from tradewind.spec import Placement, Resources, RunSpec, Toleration
from tradewind.store import Run

NATIVE = Capabilities(native_gangs=True, kueue=True)
KUEUE = Capabilities(kueue=True)
PLACED = Placement(
    image=IMAGE,
    image_pull_secrets=("registry",),
    node_selector={"pool": "train"},
    tolerations=(Toleration(key="gpu", effect="NoSchedule"), Toleration(effect="NoExecute", seconds=60)),
    service_account="trainer",
    host_resources={"rdma/hca": 1},
    claims=("fast-gpu",),
    topology="example.com/rack",
)
RICH = RunSpec(
    script="train.py",
    hosts=2,
    workers=8,
    resources=Resources(cpus=1.5, memory_gib=8, gpus=1, gpu_type="H100", shm_gib=2),
    placement=PLACED,
)
SLICED = RunSpec(script="train.py", resources=Resources(gpus=2, mig="1g.10gb"))
QUEUED = msgspec.structs.replace(RICH, placement=msgspec.structs.replace(PLACED, queue="team"))
SHARED = context(
    volumes=(Volume(claim="data", path="/data", read_only=True), Volume(claim="runs", path="/shared")),
    run_root="/shared/runs",
    secrets=("store",),
    blobs="s3://bucket/blobs",
    keep_s=None,
)
REQUESTS = {
    "one host": request(RunSpec(script="train.py")),
    "barrier": request(),
    "native gang": request(capabilities=NATIVE),
    "rich": request(RICH, on=SHARED),
    "rich, native gang": request(RICH, on=SHARED, capabilities=NATIVE),
    "queued": request(QUEUED, on=SHARED, capabilities=KUEUE),
    "slices": request(SLICED),
    "code in an object store": request(code=msgspec.structs.replace(request().code, layers=(), parts={})),
}


def by_kind(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The last object of a kind."""
    return [manifest for manifest in found if manifest["kind"] == kind][-1]


def pod(of: Request) -> dict[str, Any]:
    """The pod of the Job."""
    spec: dict[str, Any] = by_kind(manifests(of), "Job")["spec"]["template"]["spec"]
    return spec


def env(of: Request) -> dict[str, Any]:
    """The agent's environment."""
    return {item["name"]: item.get("value") for item in pod(of)["containers"][0]["env"]}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_real_api_server_takes_every_object(kubernetes: ControlPlane, name: str) -> None:
    """Server-side dry run with strict fields: nothing that is asked for is unknown or ill-formed."""
    for manifest in manifests(REQUESTS[name]):
        taken = kubernetes.api.apply(manifest, "default", dry_run=True)
        assert taken["metadata"]["name"] == manifest["metadata"]["name"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", REQUESTS)
def test_the_operators_schemas_take_every_render(crds: ControlPlane, name: str, target: str) -> None:
    """JobSet, TrainJob with its runtime, and RayJob are valid against the schemas of their operators."""
    for manifest in render(target, REQUESTS[name]):
        taken = crds.api.apply(manifest, "default", dry_run=True)
        assert taken["metadata"]["name"] == manifest["metadata"]["name"]


@pytest.mark.parametrize("name", REQUESTS)
def test_pods_fit_the_restricted_standard(kubernetes: ControlPlane, name: str) -> None:
    """A namespace that enforces Kubernetes' strictest pod standard warns of nothing, but for RDMA's pinned memory."""
    spec = pod(REQUESTS[name])
    added = [c["securityContext"]["capabilities"].get("add", []) for c in spec["containers"]]
    assert added == ([["IPC_LOCK"]] if REQUESTS[name].placement.host_resources else [[]])
    if added == [[]]:
        kubernetes.api.call("PATCH", "/api/v1/namespaces/default", RESTRICTED, headers=MERGE)
        try:
            bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restricted"}, "spec": dict(spec)}
            bare["spec"].pop("schedulingGroup", None)
            kubernetes.api.create(bare, "default", dry_run=True)
        finally:
            kubernetes.api.call("PATCH", "/api/v1/namespaces/default", UNRESTRICTED, headers=MERGE)


MERGE = {"Content-Type": "application/merge-patch+json"}
RESTRICTED = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
UNRESTRICTED = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}}


def test_a_host_asks_for_its_share_of_all_workers() -> None:
    """Four workers of 1.5 CPUs, 8 GiB and one H100 each make one host; its shared memory is bounded."""
    spec = pod(REQUESTS["rich"])
    asked = spec["containers"][0]["resources"]
    assert asked["requests"] == {"cpu": "6000m", "memory": "32768Mi", "nvidia.com/gpu": "4", "rdma/hca": "1"}
    assert asked["limits"] == {"memory": "32768Mi", "nvidia.com/gpu": "4", "rdma/hca": "1"}
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "H100", "pool": "train"}
    assert by_name(spec["volumes"], "shm")["emptyDir"] == {"medium": "Memory", "sizeLimit": "8192Mi"}
    assert spec["resourceClaims"] == [{"name": "fast-gpu", "resourceClaimTemplateName": "fast-gpu"}]
    assert pod(REQUESTS["slices"])["containers"][0]["resources"]["limits"] == {"nvidia.com/mig-1g.10gb": "2"}


def by_name(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The item of this name."""
    return next(item for item in items if item["name"] == name)


def test_hosts_know_each_other() -> None:
    """Every host has the same list of addresses, and its own index from the pod's annotation."""
    assert env(REQUESTS["barrier"])[names.ENV_HOSTS] == (
        "train-0123456789ab-0.train-0123456789ab:29400,train-0123456789ab-1.train-0123456789ab:29400"
    )
    index = by_name(pod(REQUESTS["barrier"])["containers"][0]["env"], names.ENV_HOST)
    assert "job-completion-index" in index["valueFrom"]["fieldRef"]["fieldPath"]
    assert (env(REQUESTS["one host"])[names.ENV_HOSTS] or "").count(":") == 1
    token = by_name(pod(REQUESTS["barrier"])["containers"][0]["env"], names.ENV_TOKEN)["valueFrom"]
    assert token == {"secretKeyRef": {"name": "train-0123456789ab", "key": "token"}}


GANGS = [
    (2, None, "auto", NATIVE, "native"),
    (2, "q", "auto", NATIVE, "native"),
    (2, "q", "auto", KUEUE, "kueue"),
    (2, None, "auto", KUEUE, "barrier"),
    (2, None, "auto", Capabilities(), "barrier"),
    (2, None, "auto", None, "barrier"),
    (2, "q", "auto", None, "kueue"),
    (2, None, "native", None, "native"),
    (2, None, "barrier", NATIVE, "barrier"),
    (1, None, "auto", NATIVE, "none"),
]


@pytest.mark.parametrize(("hosts", "queue", "wish", "has", "gang"), GANGS)
def test_gangs_by_the_best_means_there_are(
    hosts: int, queue: str | None, wish: Any, has: Capabilities | None, gang: str
) -> None:
    """Kubernetes' own gang where the cluster has it, else Kueue's for a run with a queue, else a barrier."""
    spec = RunSpec(script="a.py", hosts=hosts, workers=hosts, placement=Placement(queue=queue))
    of = request(spec, on=context(gang=wish), capabilities=has)
    found = {manifest["kind"] for manifest in manifests(of)}
    assert of.gang == gang
    assert ("PodGroup" in found, "schedulingGroup" in pod(of)) == (gang == "native", gang == "native")
    assert (names.ENV_START_DEADLINE in env(of)) == (gang == "barrier")
    job = by_kind(manifests(of), "Job")
    assert job["spec"]["suspend"] == (queue is not None)
    assert job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == queue


REFUSED = [
    (Placement(queue="q"), Context(placement=Placement(image="i")), Capabilities(), "has no Kueue"),
    (Placement(), Context(placement=Placement(image="i"), gang="kueue"), KUEUE, "kueue needs a queue"),
    (Placement(), Context(placement=Placement(image="i"), gang="native"), KUEUE, "GenericWorkload"),
    (Placement(), Context(), KUEUE, "no image is named; give --image"),
]


@pytest.mark.parametrize(("placement", "on", "has", "problem"), REFUSED)
def test_what_a_cluster_cannot_give_is_said(
    placement: Placement, on: Context, has: Capabilities, problem: str
) -> None:
    """A queue without Kueue, gangs that are not there, no image: refused with the remedy before anything is made."""
    with pytest.raises(SpecError, match=problem):
        request(RunSpec(script="a.py", hosts=2, workers=2, placement=placement), on=on, capabilities=has)


def test_the_context_fills_in_and_the_run_wins() -> None:
    """A run's own image and class hold; selectors and tolerations of both hold."""
    mine = Placement(image="mine", node_selector={"a": "1"}, tolerations=(Toleration(key="x"),))
    theirs = Placement(
        image="theirs",
        node_selector={"a": "0", "b": "2"},
        tolerations=(Toleration(key="x"), Toleration(key="y")),
        priority_class="high",
    )
    of = request(RunSpec(script="a.py", placement=mine), on=Context(placement=theirs))
    assert (of.image, of.placement.priority_class) == ("mine", "high")
    assert of.placement.node_selector == {"a": "1", "b": "2"}
    assert [t.key for t in of.placement.tolerations] == ["x", "y"]


@pytest.mark.parametrize(("seconds", "grace"), [(None, 60), (5.0, 60), (40.0, 150), (0.1, 60), (600.5, 1832)])
def test_grace_follows_the_measured_checkpoint(seconds: float | None, grace: int) -> None:
    """Pods get three times the slowest checkpoint and a step's time on top, and never less than a minute."""
    assert grace_s(seconds) == grace
    of = request(checkpoint_s=seconds)
    assert pod(of)["terminationGracePeriodSeconds"] == grace
    told = msgspec.json.decode(manifests(of)[0]["data"]["run.json"], type=Run)
    assert job_of(told).grace_s == grace - 20


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train-0123456789ab"),
        ("My Model v2.0", "my-model-v2-0-0123456789ab"),
        ("7b", "run-7b-0123456789ab"),
        ("___", "run-0123456789ab"),
        ("größe", "gr-e-0123456789ab"),
        ("x" * 99, "x" * 32 + "-0123456789ab"),
    ],
)
def test_any_name_makes_a_host_name(name: str, expected: str) -> None:
    """Objects are named after the run, by the rules of DNS."""
    assert object_name(name, "0123456789ab") == expected


def test_checkpoints_are_on_the_run_s_volume() -> None:
    """With a run_root, or a folder of the run's own, checkpoints outlive the pod; a folder pods lack is refused."""
    step = pod(REQUESTS["rich"])["initContainers"][0]["command"]
    assert step[-2:] == ["/tradewind/run/checkpoints", "/shared/runs/0123456789ab/checkpoints"]
    assert pod(REQUESTS["barrier"])["initContainers"][0]["command"][-1] == "/tradewind/run/checkpoints"
    mine = request(RunSpec(script="a.py", checkpoint_dir="/shared/mine"), on=SHARED)
    assert pod(mine)["initContainers"][0]["command"][-1] == "/shared/mine"
    with pytest.raises(SpecError, match="checkpoint_dir: /elsewhere is on none of the context's volumes"):
        request(RunSpec(script="a.py", checkpoint_dir="/elsewhere"), on=SHARED)
    with pytest.raises(SpecError, match="is on none of `volumes`"):
        context(run_root="/elsewhere")
