"""Runs on a real control plane, trained to their end by real processes on the nodes of tests/services/kubelet.py."""

import json
import pathlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.agent import training
from tests.agent.test_supervise import check_exactly_once
from tests.agent.training import Finished
from tests.launch.kubernetes.nodes import Cluster
from tests.launch.recipe import Trained, package
from tests.services.kubernetes import ControlPlane, Options, control_plane
from tests.services.namespaces import Network, network
from tradewind.cli.main import invoke

pytestmark = pytest.mark.slow
NODES = 4


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with native gangs that takes a node for lost within seconds."""
    options = Options(gangs=True, node_grace_s=8)
    with control_plane(tmp_path_factory.mktemp("plane"), options) as built:
        yield built


@pytest.fixture(scope="module")
def wires() -> Iterator[Network]:
    with network(NODES) as built:
        yield built


@pytest.fixture
def cluster(
    plane: ControlPlane, wires: Network, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """Four nodes, in a project of its own; the command line and the pods have one store."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRADEWIND_BLOBS", raising=False)
    built = Cluster(plane, wires, tmp_path, NODES)
    monkeypatch.setenv("TRADEWIND_STORE", built.store)
    yield built
    built.close()


def submit(*words: str) -> str:
    """`tradewind run ... --on k8s --detach`; the id of the run."""
    assert invoke(["run", *words[:1], "--on", "k8s", "--detach", *words[1:]]) == 0
    return newest()


def newest() -> str:
    from tradewind.store import open_store

    with open_store() as store:
        return store.runs()[0].id


def test_a_pod_that_is_evicted_commits_first(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """A deleted pod gets its grace: all hosts commit the same step and ask to be run again, and nothing is redone."""
    cluster.configure({"PLAN": "SLOW=0.2", "EVERY": "1000"})
    pathlib.Path("script.py").write_text(training.SCRIPT)
    run = submit("script.py", "--hosts", "2", "--workers", "2", "--gpus", "1")
    cluster.wait_for("step", 2)
    name = cluster.pod(1).pod["metadata"]["name"]
    cluster.api.delete(f"/api/v1/namespaces/{cluster.namespace}/pods/{name}")
    found = cluster.finish(run)
    calm = training.run(tmp_path / "calm", 2)
    assert calm.code == 0, calm.output
    assert found.code == 0, found.output
    assert found.weights == calm.weights
    check_exactly_once(found)
    assert found.of("asked")
    stopped = [event.data["step"] for event in found.of("resume")]
    assert stopped
    assert len(set(stopped)) == 1


HOSTS = 3
TRAINED = Trained(workers=HOSTS, epochs=3, gates=(6, 12, 18, 24))
FIRST = """
import os, pathlib
print("rank", os.environ["RANK"], "goes first", flush=True)
"""


@pytest.fixture
def calm_recipe(tmp_path: pathlib.Path) -> "subprocess.Popen[str]":
    """The recipe, undisturbed, with three workers on this machine."""
    return TRAINED.start_calm(tmp_path / "calm")


def at_gate(cluster: Cluster, step: int) -> None:
    """Return once all workers are in the body of this step."""
    TRAINED.at_gate(cluster.volume / "out", step, cluster.said)


def lose_a_node(cluster: Cluster, index: int) -> None:
    """The machine of a host is gone, and whoever has seen that it is off says so."""
    lost = cluster.node_of(cluster.pod(index))
    lost.lose()
    # Without that word nobody may take its pods for gone.
    taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
    cluster.api.patch(f"/api/v1/nodes/{lost.name}", {"spec": {"taints": [taint]}})


def go_first(cluster: Cluster) -> str:
    """A run of all hosts there are, of a higher priority."""
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}}
    cluster.api.apply(urgent | {"value": 1000})
    pathlib.Path("first.py").write_text(FIRST)
    spec = {"script": "first.py", "hosts": HOSTS, "workers": HOSTS, "resources": {"gpus": 1}}
    pathlib.Path("first.yaml").write_text(yaml.safe_dump(spec | {"placement": {"priority_class": "urgent"}}))
    return submit("first.yaml")


def suspend_and_resume(cluster: Cluster, job: str) -> None:
    """What Kueue does to a Job whose quota is taken back and given again; a stand-in for its controller."""
    cluster.api.patch(job, {"spec": {"suspend": True}})
    cluster.api.wait(
        cluster.jobs,
        lambda jobs: (
            any(
                c["type"] == "Suspended" and c["status"] == "True"
                for job in jobs
                for c in job["status"].get("conditions", ())
            )
            and not any(job["status"].get("active") for job in jobs)
        ),
    )
    training.wait_until(lambda: not cluster.running(), lambda: f"pods are left\n{cluster.said()}")
    cluster.api.patch(job, {"spec": {"suspend": False}})


def said(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert invoke([*words, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.timeout(400)
def test_the_recipe_outlives_all_that_a_cluster_does_to_it(
    cluster: Cluster,
    calm_recipe: "subprocess.Popen[str]",
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A pod killed, a node lost, a whole gang preempted, a run suspended: bitwise the same weights, and each is named."""
    cluster.configure({})
    TRAINED.write(pathlib.Path())
    out = cluster.volume / "out"
    run = submit("noted.py", "--hosts", str(HOSTS), "--gpus", "1", "--", *TRAINED.flags, "--out", str(out))
    following = subprocess.Popen(
        [*training.TRADEWIND, "logs", "-f", "--rank", "1", run], stdout=subprocess.PIPE, text=True
    )
    at_gate(cluster, 6)
    stays, dies = cluster.pod(0), cluster.pod(1)
    training.wait_until(lambda: "[rank1] at step 6" in dies.log, lambda: dies.log)
    dies.kill()
    cluster.wait_for("host_came", HOSTS)
    cluster.go_on("go6")
    at_gate(cluster, 12)
    assert (stays.alive, dies.exit_code) == (True, -signal.SIGKILL)
    lose_a_node(cluster, 2)
    cluster.wait_for("host_came", HOSTS + 1)
    cluster.go_on("go12")
    at_gate(cluster, 18)
    assert stays.alive
    assert "[rank0] " in stays.log
    first = go_first(cluster)
    assert cluster.finish(first).code == 0, cluster.said()
    cluster.go_on("go18")
    at_gate(cluster, 24)
    suspend_and_resume(cluster, cluster.job_of(run))
    cluster.go_on("go24")
    found = cluster.finish(run)
    assert found.code == 0, found.output
    calm = training.finish(tmp_path / "calm", calm_recipe)
    assert calm.code == 0, calm.output
    TRAINED.check_equal(found, calm)
    assert package(found.out) == package(calm.out)
    check_resumed(found)
    check_named(said(capsys, "show", run), first)
    printed, _ = following.communicate(timeout=60)
    assert following.returncode == 0
    check_followed(printed)


def check_resumed(found: Finished) -> None:
    """Each attempt after the first goes on from a committed step, on every rank alike; none begins anew."""
    for attempt, gate in enumerate(TRAINED.gates, 1):
        steps = {event.data["step"] for event in found.of("resume") if event.attempt == attempt}
        assert len(steps) == 1, (attempt, steps, found.output)
        # Those before the last two were told to end: they did the step at the gate, and committed.
        assert min(steps) >= (gate if attempt > 2 else 1), (attempt, steps)


def check_named(shown: dict[str, Any], first: str) -> None:
    """`show` names what happened and, where it knows, by whom; its ledger accounts for all of the time."""
    interrupted = [(one["what"], one.get("host")) for one in shown["interruptions"]]
    wanted = [
        ("host_lost", "host 1"),
        ("host_lost", "host 2"),
        ("node_lost", "host 2"),
        ("preempted", None),
        ("suspended", None),
    ]
    # On a starved machine a node may be taken for lost that was not.
    assert [one for one in interrupted if one in wanted] == wanted, interrupted
    (preempted,) = [one for one in shown["interruptions"] if one["what"] == "preempted"]
    (suspended,) = [one for one in shown["interruptions"] if one["what"] == "suspended"]
    assert f"Preempted by podgroup first-{first}" in preempted["why"]
    assert "Job suspended" in suspended["why"]
    ledger = shown["ledger"]
    assert min(ledger[name] for name in ("pending", "restart", "preempted", "suspended")) > 0
    assert sum(ledger.values()) == pytest.approx(shown["wall_s"])


def check_followed(printed: str) -> None:
    """`logs -f` from pending to the end has a rank's lines of every pod that it was in, and no other rank's."""
    lines = printed.splitlines()
    assert all(line.startswith("[host1] [rank1] ") for line in lines), printed
    steps = [int(line.split()[-1]) for line in lines if "at step" in line]
    assert sorted(set(steps)) == list(TRAINED.gates)
    assert steps == sorted(steps)
    assert steps.count(6) > 1, "the pod that was killed was there, and the one in its place"
