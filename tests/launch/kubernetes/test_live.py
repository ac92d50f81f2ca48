"""`why` against a live cluster: the same rules on what is fetched, with less where less may be read, and afterwards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.launch.conftest import write
from tests.launch.kubernetes.builders import IMAGE, request
from tests.launch.kubernetes.test_submit import Seen, apply_rbac, token_kubeconfig, write_context
from tests.services.kubernetes import ControlPlane
from tradewind.errors import ClusterError, NotFoundError
from tradewind.launch.kubernetes.ask import ask_of
from tradewind.launch.kubernetes.cluster import Cluster
from tradewind.launch.kubernetes.context import load_context
from tradewind.launch.kubernetes.live import explain_job, explain_there
from tradewind.launch.kubernetes.look import PLANNING, look
from tradewind.launch.kubernetes.outlook import outlook
from tradewind.launch.kubernetes.place import place_of
from tradewind.launch.kubernetes.situation import Verdict
from tradewind.launch.kubernetes.status import refresh
from tradewind.launch.kubernetes.submit import submit
from tradewind.spec import Placement, Resources, RunSpec
from tradewind.store import Run, Store, open_store

pytest.importorskip("lightkube", reason="KUBERNETES IS NOT TESTED: lightkube is not installed")

DEPLOY = Path(__file__).parents[3] / "deploy" / "kubernetes"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The store of the home folder."""
    with open_store() as opened:
        yield opened


@pytest.fixture
def seen(kubernetes: ControlPlane, namespace: str) -> Seen:
    """What the test's namespace holds."""
    return Seen(kubernetes, namespace)


def taints_of(name: str, nodes: list[Any]) -> list[Any]:
    """What keeps pods off a node."""
    (found,) = [node for node in nodes if node["metadata"]["name"] == name]
    return list(found["spec"].get("taints", ()))


@pytest.fixture
def waiting(root: Path, home: Path, store: Store, kubernetes: ControlPlane, seen: Seen) -> Iterator[Run]:
    """A run that asks for eight GPUs on a host where the one node it may go to has four; said by the scheduler."""
    kubernetes.add_node(seen.namespace, gpus=4, labels={"pool": seen.namespace}, kwok=False)
    # Every node begins with a taint that the node controller takes away; until then that is all the scheduler says.
    kubernetes.api.wait("/api/v1/nodes", lambda nodes: not taints_of(seen.namespace, nodes))
    write(root, {"train.py": "print(1)\n"})
    on = write_context(home, kubernetes.kubeconfig, seen.namespace)
    spec = RunSpec(
        script="train.py",
        workers=8,
        resources=Resources(gpus=1),
        placement=Placement(image=IMAGE, node_selector={"pool": seen.namespace}),
    )
    run = submit(spec, on, store, cwd=root)
    pods = f"/api/v1/namespaces/{seen.namespace}/pods"
    kubernetes.api.wait(pods, lambda found: found and all(p["status"].get("conditions") for p in found))
    yield run
    kubernetes.api.delete(f"/api/v1/nodes/{seen.namespace}")


def test_a_run_and_its_job_are_explained_alike(waiting: Run, store: Store) -> None:
    """By the run's id, and by the Job's name in its context; a name that is not there says where it looked."""
    place = place_of(waiting)
    assert place is not None
    answer = explain_there(waiting, store)
    assert answer.without == ()
    assert answer.found.causes[0].code == "never-fits"
    assert "at most" in answer.found.causes[0].text or "most that any" in answer.found.causes[0].text
    context = load_context(place.on)
    assert explain_job(context, place.job).found == answer.found
    with pytest.raises(NotFoundError, match="job/nobody: there is none in namespace"):
        explain_job(context, "nobody")


def test_what_was_recorded_explains_a_run_whose_job_is_gone(waiting: Run, store: Store, seen: Seen) -> None:
    """The Job is deleted by somebody: the store's last word is the cause, and it says that it is the store's."""
    place = place_of(waiting)
    assert place is not None
    seen.api.delete(f"{seen.path('jobs')}/{place.job}")
    seen.until_gone("jobs")
    answer = explain_there(refresh(waiting, store), store)
    assert "its Job was deleted" in answer.found.causes[0].text
    assert answer.without == (f"by what was recorded: Job {place.job} is no longer on {place.on}",)


def test_a_cluster_that_is_away_leaves_what_was_recorded(waiting: Run, store: Store, home: Path) -> None:
    """The reason that it could not be asked is told."""
    path = home / "contexts/test.yaml"
    config = home / "gone.kubeconfig"
    about = msgspec.json.decode(path.read_bytes())
    found = yaml.safe_load(Path(about["kubeconfig"]).read_text())
    port = found["clusters"][0]["cluster"]["server"].rpartition(":")[2]
    config.write_text(yaml.safe_dump(found).replace(port, "9"))
    path.write_bytes(msgspec.json.encode(about | {"kubeconfig": str(config)}))
    place = waiting.spec["place"] | {"cluster": "https://127.0.0.1:9"}
    answer = explain_there(msgspec.structs.replace(waiting, spec=waiting.spec | {"place": place}), store)
    assert answer.found.state == "pending"
    assert "cannot be reached" in answer.without[0]


def test_rights_that_are_missing_are_named(
    waiting: Run, store: Store, home: Path, kubernetes: ControlPlane, seen: Seen
) -> None:
    """With the launcher's Role alone the rules go on with the Job and its pods; each missing verb is named once.

    With the roles of rbac-look.yaml beside it nothing is missing.
    """
    apply(seen, "rbac.yaml")
    kubeconfig = token_kubeconfig(home, kubernetes, seen)
    on = write_context(home, kubeconfig, seen.namespace)
    answer = explain_there(waiting, store)
    assert answer.found.causes[0].code == "no-capacity"
    nodes = "nodes may not be read: the verb `list` on them is missing in the whole cluster (a ClusterRole)"
    assert any(line.startswith(nodes) for line in answer.without)
    assert any("resourcequotas may not be read" in line and seen.namespace in line for line in answer.without)
    asked = ask_of(request(), seen.namespace)
    with Cluster(load_context(on)) as cluster:
        assert outlook(asked, look(cluster, PLANNING).world).verdict is Verdict.UNKNOWN
    apply(seen, "rbac-look.yaml")
    try:
        until_allowed(seen, load_context(on))
        answer = explain_there(waiting, store)
        assert (answer.without, answer.found.causes[0].code) == ((), "never-fits")
        with Cluster(load_context(on)) as cluster:
            found = look(cluster, PLANNING)
        assert found.unread == ()
    finally:
        for kind in ("clusterroles", "clusterrolebindings"):
            kubernetes.api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/tradewind-look")


def until_allowed(seen: Seen, context: Any) -> None:
    """The authorizer learns of a role a moment after it is made: ask until it has."""
    with Cluster(context) as cluster:
        while look(cluster, PLANNING).unread:
            pass


def apply(seen: Seen, file: str) -> None:
    """Make the objects of a file in the test's namespace."""
    for manifest in yaml.safe_load_all((DEPLOY / file).read_text()):
        for subject in manifest.get("subjects", ()):
            subject["namespace"] = seen.namespace
        if manifest["kind"].startswith("Cluster"):
            seen.api.create(manifest)
        else:
            apply_rbac(seen, manifest)


def test_no_job_may_be_read(
    waiting: Run, store: Store, home: Path, kubernetes: ControlPlane, seen: Seen
) -> None:
    """Without the right to see Jobs there is nothing to explain, and the error names the right."""
    apply(seen, "rbac.yaml")
    kubeconfig = token_kubeconfig(home, kubernetes, seen)
    context = load_context(write_context(home, kubeconfig, seen.namespace))
    elsewhere = msgspec.structs.replace(context, namespace="default")
    with pytest.raises(ClusterError, match=r"jobs\.batch may not be read: the verb `list`"):
        explain_job(elsewhere, "train")
