"""Runs on a real control plane: made as a whole or not at all, followed, stopped, and what a second one moves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.conftest import write
from tests.launch.kubernetes.builders import IMAGE, request
from tests.services.kube_api import ApiError
from tests.services.kubernetes import ControlPlane
from tradewind import names
from tradewind.errors import ClusterError, SpecError, StoreError
from tradewind.launch.kubernetes.cluster import Cluster
from tradewind.launch.kubernetes.context import load_context
from tradewind.launch.kubernetes.incidents import note_incidents
from tradewind.launch.kubernetes.place import place_of
from tradewind.launch.kubernetes.status import refresh, refresh_all, stop
from tradewind.launch.kubernetes.submit import create, resubmit, submit
from tradewind.spec import RunSpec
from tradewind.store import Event, Run, Store, open_store

pytest.importorskip("lightkube", reason="KUBERNETES IS NOT TESTED: lightkube is not installed")

DEPLOY = Path(__file__).parents[3] / "deploy" / "kubernetes"
TWO = RunSpec(script="train.py", hosts=2, workers=2)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The store of the home folder."""
    with open_store() as opened:
        yield opened


@pytest.fixture
def on(home: Path, kubernetes: ControlPlane, namespace: str) -> str:
    """A context for the test's namespace, by the administrator's kubeconfig."""
    return write_context(home, kubernetes.kubeconfig, namespace)


def write_context(home: Path, kubeconfig: Path, namespace: str, **fields: Any) -> str:
    """A context file; how it is asked for."""
    about = {"kubeconfig": str(kubeconfig), "namespace": namespace, "placement": {"image": IMAGE}} | fields
    (home / "contexts").mkdir(parents=True, exist_ok=True)
    (home / "contexts/test.yaml").write_text(json.dumps(about))
    return "k8s:test"


@pytest.fixture
def project(root: Path) -> Path:
    """A small project with a script."""
    write(root, {"train.py": "print(1)\n", **{f"lib/{i}.py": f"x = {i}\n" * 50 for i in range(20)}})
    return root


class Seen:
    """What a namespace holds."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.api, self.namespace, self.kubeconfig = plane.api, namespace, plane.kubeconfig

    def path(self, kind: str) -> str:
        """The collection of a kind."""
        groups = {"jobs": "/apis/batch/v1", "podgroups": "/apis/scheduling.k8s.io/v1beta1"}
        return f"{groups.get(kind, '/api/v1')}/namespaces/{self.namespace}/{kind}"

    def items(self, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind, without what Kubernetes puts into every namespace."""
        return [i for i in self.api.items(self.path(kind)) if i["metadata"]["name"] != "kube-root-ca.crt"]

    def until_gone(self, *kinds: str) -> None:
        """Return once there is nothing of these kinds."""
        for kind in kinds:
            self.api.wait(self.path(kind), lambda found: not [i for i in found if is_ours(i)])

    def end(self, pod: dict[str, Any], code: int, **status: Any) -> None:
        """Say what a kubelet says of a pod whose agent ended with `code`."""
        ended = {"terminated": {"exitCode": code, "reason": "Error", "finishedAt": "2026-01-01T00:00:09Z"}}
        about = {
            "name": "agent",
            "image": "i",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": ended,
        }
        phase = "Failed" if code else "Succeeded"
        status = {"phase": phase, "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [about]} | status
        self.api.patch(f"{self.path('pods')}/{pod['metadata']['name']}/status", {"status": status})

    def pods(self, count: int, index: int | None = None) -> list[dict[str, Any]]:
        """The run's live pods by index, once there are so many."""

        def live(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [p for p in found if p["status"]["phase"] in ("Pending", "Running")]

        found = live(self.api.wait(self.path("pods"), lambda items: len(live(items)) == count))
        found.sort(key=index_of)
        return found if index is None else [pod for pod in found if index_of(pod) == index]


def is_ours(item: dict[str, Any]) -> bool:
    """Whether the launcher made an object."""
    return item["metadata"].get("labels", {}).get(names.LABEL_MANAGED_BY) == "tradewind"


def index_of(pod: dict[str, Any]) -> int:
    """Which host a pod is."""
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


@pytest.fixture
def seen(kubernetes: ControlPlane, namespace: str) -> Seen:
    """The test's namespace."""
    return Seen(kubernetes, namespace)


def test_a_run_is_made_and_its_job_owns_everything(project: Path, store: Store, on: str, seen: Seen) -> None:
    """A gang of two pods, named hosts and code are there; deleting the Job leaves nothing behind."""
    run = submit(TWO, on, store, cwd=project)
    place = place_of(store.run(run.id))
    assert place is not None
    job = seen.items("jobs")[0]
    assert (job["metadata"]["name"], job["spec"]["suspend"], place.gang) == (place.job, False, "native")
    assert [index_of(pod) for pod in seen.pods(2)] == [0, 1]
    for kind in ("configmaps", "services", "secrets", "podgroups"):
        for item in seen.items(kind):
            owners = item["metadata"]["ownerReferences"]
            assert [(o["kind"], o["uid"]) for o in owners] == [("Job", job["metadata"]["uid"])]
    assert {len(seen.items("configmaps")), len(seen.items("services")), len(seen.items("podgroups"))} == {
        2,
        1,
    }
    assert refresh(run, store).state == "pending"
    assert stop(run, store).state == "stopped"
    seen.until_gone("jobs", "pods", "configmaps", "services", "secrets", "podgroups")
    assert [(a.state, a.exit_code) for a in store.attempts(run.id)] == [("stopped", 130)]


def test_a_second_submit_moves_what_was_edited(project: Path, store: Store, on: str, seen: Seen) -> None:
    """After an edit there is one more small part, the old one has two owners, and outlives the first of them."""
    first = submit(TWO, on, store, cwd=project)
    before = {item["metadata"]["name"] for item in parts(seen)}
    write(project, {"train.py": "print(2)\n"})
    second = submit(TWO, on, store, cwd=project)
    sizes = {item["metadata"]["name"]: len(json.dumps(item["binaryData"])) for item in parts(seen)}
    assert (len(before), len(sizes)) == (1, 2)
    added = sizes.keys() - before
    assert sum(sizes[name] for name in added) < sum(sizes[name] for name in before)
    stop(first, store)
    seen.api.wait(seen.path("configmaps"), lambda found: len(owners_of(found, before)) == 1)
    assert sizes.keys() == {item["metadata"]["name"] for item in parts(seen)}
    stop(second, store)
    seen.until_gone("configmaps")


def parts(seen: Seen) -> list[dict[str, Any]]:
    """The ConfigMaps that hold code."""
    return [i for i in seen.items("configmaps") if names.LABEL_CODE in i["metadata"]["labels"]]


def owners_of(found: list[dict[str, Any]], wanted: set[str]) -> list[str]:
    """The uids that own the objects of these names."""
    held = [i["metadata"] for i in found if i["metadata"]["name"] in wanted]
    return [owner["uid"] for metadata in held for owner in metadata.get("ownerReferences", ())]


def test_the_same_code_moves_nothing_and_rerun_is_the_same(
    project: Path, store: Store, on: str, seen: Seen
) -> None:
    """A rerun has the same snapshot, layers and arguments under an id of its own, whatever lies there now."""
    first = submit(TWO, on, store, cwd=project)
    write(project, {"train.py": "print('edited')\n"})
    again = resubmit(store.run(first.id), store)
    places = [place_of(first), place_of(again)]
    assert len({place.layers for place in places if place}) == 1
    assert (again.snapshot, len(parts(seen))) == (first.snapshot, 1)
    assert again.id != first.id
    specs = [{**store.run(run.id).spec, "place": None} for run in (first, again)]
    assert specs[0] == specs[1]


def test_what_is_refused_leaves_nothing(project: Path, store: Store, on: str, seen: Seen) -> None:
    """When the cluster's admission says no, its words are the error, no run is known and nothing was made."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    seen.api.create(quota | {"spec": {"hard": {"count/jobs.batch": "0"}}}, seen.namespace)
    seen.api.wait(seen.path("resourcequotas"), lambda found: found[0].get("status", {}).get("hard"))
    with pytest.raises(ClusterError, match="exceeded quota: none"):
        submit(TWO, on, store, cwd=project)
    assert (store.runs(), seen.items("jobs"), seen.items("configmaps")) == ([], [], [])


def test_a_failure_half_way_is_undone(
    project: Path, store: Store, on: str, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error between the first object and the last deletes what was made, and the run is known as failed."""
    apply, made = Cluster.apply, []

    def breaks(self: Cluster, manifest: Any, **how: Any) -> Any:
        if not how.get("dry_run"):
            made.append(manifest["kind"])
        if made[-1:] == ["PodGroup"]:
            raise KeyboardInterrupt
        return apply(self, manifest, **how)

    monkeypatch.setattr(Cluster, "apply", breaks)
    with pytest.raises(KeyboardInterrupt):
        submit(TWO, on, store, cwd=project)
    assert made[:3] == ["Job", "Secret", "ConfigMap"]
    seen.until_gone("jobs", "secrets", "configmaps", "services", "pods")
    assert [run.state for run in store.runs()] == ["failed"]


def test_making_a_run_twice_is_making_it_once(on: str, seen: Seen) -> None:
    """The same request again changes nothing, not even a running Job's suspension."""
    of = request(on=load_context(on))
    with Cluster(of.context) as cluster:
        first = create(of, cluster, {})
        second = create(of, cluster, {})
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert second["spec"]["suspend"] is False
    assert len(seen.pods(2)) == 2


def test_a_part_that_went_away_is_not_made_again_empty(on: str, seen: Seen) -> None:
    """When the last owner of a part is deleted while a run adopts it, the run is refused as a whole."""
    of = request(on=load_context(on))
    with Cluster(of.context) as cluster:
        gone = dict.fromkeys(of.code.names, "11111111-1111-1111-1111-111111111111")
        with pytest.raises(
            ClusterError, match="was deleted just now, and the code in it with it; submit again"
        ):
            create(of, cluster, gone)
    seen.until_gone("jobs", "configmaps")


def test_pods_wait_for_a_queue(
    crds: ControlPlane, home: Path, project: Path, store: Store, seen: Seen
) -> None:
    """With a queue the Job stays suspended until Kueue admits it, and is marked for Kueue only when all is there."""
    placement = {"image": IMAGE, "queue": "team"}
    on = write_context(home, crds.kubeconfig, seen.namespace, placement=placement, gang="kueue")
    run = submit(TWO, on, store, cwd=project)
    job = seen.items("jobs")[0]
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert (seen.items("pods"), refresh(run, store).state) == ([], "pending")


def test_a_lost_host_is_replaced_alone(project: Path, store: Store, on: str, seen: Seen) -> None:
    """A host that asks to be run again, or was disrupted, is replaced and not counted; the other keeps its pod."""
    run = submit(RunSpec(script="train.py", hosts=2, workers=2, max_restarts=1), on, store, cwd=project)
    other = seen.pods(2)[0]["metadata"]["uid"]
    seen.end(seen.pods(2, index=1)[0], names.ExitCode.REQUEUE)
    again = seen.pods(2, index=1)[0]
    disrupted = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    seen.end(again, 137, conditions=disrupted)
    third = seen.pods(2, index=1)[0]
    seen.end(third, names.ExitCode.FAILED)
    assert len({again["metadata"]["uid"], third["metadata"]["uid"]}) == 2
    assert seen.pods(2)[0]["metadata"]["uid"] == other
    assert refresh(run, store).state == "pending"


@pytest.mark.parametrize("code", [65, 2, 130])
def test_a_bug_ends_the_run(project: Path, store: Store, on: str, seen: Seen, code: int) -> None:
    """An exit that no retry mends fails the Job at once, and the run says which host and why."""
    run = submit(TWO, on, store, cwd=project)
    seen.end(seen.pods(2, index=1)[0], code)
    seen.api.wait(seen.path("jobs"), lambda found: has_failed(found[0]))
    found = refresh(run, store)
    assert (found.state, found.exit_code) == ("stopped" if code == 130 else "failed", code)
    reason = store.attempts(run.id)[0].reason or ""
    assert f"host 1: agent ended with {code}; PodFailurePolicy" in reason


def test_a_host_that_fails_too_often_ends_the_run(project: Path, store: Store, on: str, seen: Seen) -> None:
    """Each host has `max_restarts` tries of its own; when one host's are used up, all end."""
    run = submit(RunSpec(script="train.py", hosts=2, workers=2, max_restarts=0), on, store, cwd=project)
    seen.end(seen.pods(2, index=0)[0], 137)
    seen.api.wait(seen.path("jobs"), lambda found: has_failed(found[0]))
    assert (refresh(run, store).state, store.run(run.id).exit_code) == ("failed", 137)


def has_failed(job: dict[str, Any]) -> bool:
    """Whether a Job is over, and not well."""
    conditions = job.get("status", {}).get("conditions") or []
    return any(c["type"] == "Failed" and c["status"] == "True" for c in conditions)


def test_success_and_deletion_are_noticed(project: Path, store: Store, on: str, seen: Seen) -> None:
    """Hosts that all end with 0 make a run succeed; a Job that somebody deleted makes it fail, with that reason."""
    good, lost = submit(TWO, on, store, cwd=project), submit(TWO, on, store, cwd=project)
    for pod in [p for p in seen.pods(4) if p["metadata"]["labels"][names.LABEL_RUN] == good.id]:
        seen.end(pod, 0)
    place = place_of(lost)
    assert place is not None
    seen.api.delete(f"{seen.path('jobs')}/{place.job}")
    seen.api.wait(
        seen.path("jobs"), lambda found: len(found) == 1 and found[0]["status"].get("succeeded") == 2
    )
    seen.api.wait(seen.path("jobs"), lambda found: bool(found[0]["status"].get("completionTime")))
    runs, problems = refresh_all([good, lost], store)
    assert ([run.state for run in runs], problems) == (["succeeded", "failed"], [])
    assert [a.reason for a in store.attempts(lost.id)] == ["its Job was deleted"]


def test_a_cluster_that_cannot_be_asked_is_named(
    project: Path, home: Path, store: Store, on: str, seen: Seen
) -> None:
    """Runs stay as they were last seen when their cluster is away or another one took its name."""
    run = submit(TWO, on, store, cwd=project)
    kubeconfig = yaml.safe_load((Path(load_context(on).kubeconfig or "")).read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (home / "other").write_text(yaml.safe_dump(kubeconfig))
    write_context(home, home / "other", seen.namespace)
    runs, problems = refresh_all([run], store)
    assert runs == [run]
    assert "is now https://127.0.0.1:1, and the run went to" in problems[0]
    with pytest.raises(StoreError):
        refresh(run, store)
    with pytest.raises(ClusterError, match=r"cluster https://127\.0\.0\.1:1 cannot be reached"):
        submit(TWO, on, store, cwd=project)
    write_context(home, home / "nothing", seen.namespace)
    with pytest.raises(SpecError, match=r"kubeconfig: .*nothing"):
        submit(TWO, on, store, cwd=project)


def test_grace_is_what_checkpoints_took(project: Path, store: Store, on: str, seen: Seen) -> None:
    """Pods get the time that the newest run of this name needed for its slowest checkpoint, and some more."""
    store.add_run(Run(id="earlier", name="train", created_s=1.0))
    for took_s in (50.0, 8.0):
        event = Event(
            run="earlier", attempt=0, t_s=1.0, kind="checkpoint", data={"seconds": took_s, "stall_s": 0.0}
        )
        store.add_events([event])
    submit(TWO, on, store, cwd=project)
    assert seen.pods(2)[0]["spec"]["terminationGracePeriodSeconds"] == 180


def test_code_too_large_goes_through_the_blob_store(
    project: Path, home: Path, store: Store, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ConfigMaps do not suffice and the context names a store, pods fetch from it what was put there."""
    from tradewind.launch.kubernetes import code, fetch

    monkeypatch.setattr(code, "MAX_PARTS", 0)
    write_context(home, seen.kubeconfig, seen.namespace)
    with pytest.raises(SpecError, match="name an object store in `blobs` of the context"):
        submit(TWO, "k8s:test", store, cwd=project)
    shared = tmp_path / "shared"
    on = write_context(home, seen.kubeconfig, seen.namespace, blobs=str(shared))
    run = submit(TWO, on, store, cwd=project)
    step = seen.pods(2)[0]["spec"]["initContainers"][0]
    assert step["command"][1:4] == ["-P", "-m", "tradewind.launch.kubernetes.fetch"]
    monkeypatch.setenv(names.ENV_BLOBS, {e["name"]: e.get("value") for e in step["env"]}[names.ENV_BLOBS])
    (tmp_path / "pod").mkdir()
    assert fetch.main(step["command"][4], str(tmp_path / "pod"), str(tmp_path / "checkpoints")) == 0
    assert (tmp_path / "checkpoints").is_dir()
    assert (tmp_path / "pod/train.py").read_text() == "print(1)\n"
    assert run.snapshot == step["command"][4]


def test_the_role_in_deploy_suffices_and_no_more(
    project: Path, home: Path, store: Store, kubernetes: ControlPlane, seen: Seen
) -> None:
    """With nothing but the Role, a run is submitted, seen, and stopped; Secrets and other namespaces stay closed."""
    for manifest in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text()):
        if manifest["kind"] == "RoleBinding":
            manifest["subjects"][0]["namespace"] = seen.namespace
        apply_rbac(seen, manifest)
    on = write_context(home, token_kubeconfig(home, kubernetes, seen), seen.namespace)
    run = submit(TWO, on, store, cwd=project)
    write(project, {"train.py": "print(2)\n"})
    submit(TWO, on, store, cwd=project)
    assert refresh_all([run], store)[1] == []
    note_incidents(run, store)
    assert stop(run, store, now=True).state == "stopped"
    with Cluster(load_context(on)) as cluster:
        for kind in ("Secret", "ServiceAccount", "Service"):
            with pytest.raises(
                ClusterError, match=r"forbidden.*; ask for the Role in deploy/kubernetes/rbac.yaml"
            ):
                cluster.list("v1", kind, "")
        cluster.namespace = "default"
        with pytest.raises(ClusterError, match="forbidden"):
            cluster.list("batch/v1", "Job", "")


def apply_rbac(seen: Seen, manifest: dict[str, Any]) -> None:
    """Make an object of the Role's file in the test's namespace."""
    try:
        seen.api.create(manifest, seen.namespace)
    except ApiError as error:
        if error.status != 409:
            raise


def token_kubeconfig(home: Path, kubernetes: ControlPlane, seen: Seen) -> Path:
    """A kubeconfig with a token of the launcher's service account."""
    account = f"/api/v1/namespaces/{seen.namespace}/serviceaccounts/tradewind-launcher/token"
    token = seen.api.call(
        "POST", account, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    )
    config = yaml.safe_load(kubernetes.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token["status"]["token"]}
    (home / "launcher.kubeconfig").write_text(yaml.safe_dump(config))
    return home / "launcher.kubeconfig"
