"""Runs on a real control plane, trained to their end by real processes on the nodes of tests/services/kubelet.py."""

import json
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import tradewind
from tests.agent import training
from tests.agent.test_supervise import check_exactly_once
from tests.agent.training import Finished
from tests.services.kubelet import Hosts, Kubelet, RunningPod
from tests.services.kubernetes import ControlPlane, Options, control_plane
from tests.services.namespaces import Network, network
from tradewind.cli.main import invoke
from tradewind.store import Event, open_store

pytestmark = pytest.mark.slow
NODES = 3
TOLERATION = {"operator": "Exists", "effect": "NoExecute", "seconds": 1}


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


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed run of two workers on this machine."""
    found = training.run(tmp_path_factory.mktemp("calm"), 2)
    assert found.code == 0, found.output
    return found


class Cluster:
    """Nodes, a namespace with a volume, and the runs that are submitted to it."""

    def __init__(self, plane: ControlPlane, wires: Network, folder: pathlib.Path) -> None:
        self.plane, self.api, self.folder = plane, plane.api, folder
        self.namespace = plane.new_namespace()
        hosts = Hosts(folder)
        self.nodes = [
            Kubelet(plane.api, folder / "nodes", hosts, wires, index, gpus=1) for index in range(NODES)
        ]
        self.volume = folder / "volume"
        (self.volume / "out").mkdir(parents=True)
        self._claim()
        self.jobs = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{self.namespace}/pods"

    def _claim(self) -> None:
        """A volume that all nodes have: a folder of this machine."""
        name = f"data-{self.namespace}"
        common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        volume = {"capacity": {"storage": "1Gi"}, "hostPath": {"path": str(self.volume)}} | common
        head = {"apiVersion": "v1", "metadata": {"name": name}}
        self.api.create(head | {"kind": "PersistentVolume", "spec": volume})
        asked = {"volumeName": name, "resources": {"requests": {"storage": "1Gi"}}} | common
        meta = {"metadata": {"name": "data"}}
        self.api.create(head | meta | {"kind": "PersistentVolumeClaim", "spec": asked}, self.namespace)

    def submit(self, **env: str) -> None:
        """`tradewind run --on k8s` of the training script over two hosts with a GPU each."""
        known = {
            "PYTHONPATH": str(pathlib.Path(tradewind.__file__).parents[1]),
            "TRADEWIND_STORE": f"sqlite:///{self.volume}/store.db",
            "OUT": str(self.volume / "out"),
            "OMP_NUM_THREADS": "1",
        }
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "env"}, "stringData": known | env}
        self.api.create(body, self.namespace)
        context = {
            "kubeconfig": str(self.plane.kubeconfig),
            "namespace": self.namespace,
            "placement": {"image": "this-machine", "tolerations": [TOLERATION]},
            "volumes": [{"claim": "data", "path": str(self.volume)}],
            "run_root": str(self.volume / "runs"),
            "secrets": ["env"],
            "python": sys.executable,
        }
        contexts = pathlib.Path(os.environ["TRADEWIND_HOME"], "contexts")
        contexts.mkdir(parents=True)
        (contexts / "k8s.yaml").write_text(yaml.safe_dump(context))
        pathlib.Path("script.py").write_text(training.SCRIPT)
        words = ["run", "script.py", "--on", "k8s", "--hosts", "2", "--workers", "2", "--gpus", "1"]
        assert invoke([*words, "--detach"]) == 0

    def running(self) -> list[RunningPod]:
        """Pods that have not ended, wherever they are."""
        return [pod for node in self.nodes for pod in node.pods.values() if pod.alive]

    def pod(self, index: int) -> RunningPod:
        """The pod of a host of the run."""
        key = "batch.kubernetes.io/job-completion-index"
        (found,) = [p for p in self.running() if p.pod["metadata"]["annotations"][key] == str(index)]
        return found

    def node_of(self, pod: RunningPod) -> Kubelet:
        return next(node for node in self.nodes if pod in node.pods.values())

    def events(self, kind: str) -> list[Event]:
        """What the run's leader recorded so far."""
        if not (self.volume / "store.db").exists():
            return []
        with open_store(f"sqlite:///{self.volume}/store.db") as store:
            return [event for run in store.runs() for event in store.events(run.id, kind=kind)]

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Return once so many events of a kind were recorded."""
        training.wait_until(
            lambda: len(self.events(kind)) >= count,
            lambda: f"fewer than {count} of {kind}\n{self.said()}",
            limit_s=60,
        )

    def go_on(self) -> None:
        """Let the step at which workers WAIT begin."""
        (self.volume / "out" / "go").touch()

    def finish(self) -> Finished:
        """Wait until the Job is complete."""
        try:
            self.plane.api.wait(self.jobs, lambda jobs: jobs and is_over(jobs[0]), timeout_s=150)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None
        (job,) = self.api.items(self.jobs)
        code = 0 if job["status"].get("succeeded") == 2 else 1
        with open_store(f"sqlite:///{self.volume}/store.db") as store:
            (run,) = store.runs()
            return Finished(code, self.said(), run, list(store.events(run.id)), self.volume / "out")

    def said(self) -> str:
        """What is there, and what pods printed."""
        pods = [json.dumps(pod["status"]) for pod in self.api.items(self._pods)]
        logs = [
            f"--- {p.pod['metadata']['name']} on {node.name}\n{p.log}"
            for node in self.nodes
            for p in node.pods.values()
        ]
        return "\n".join([*pods, *logs])

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.api.delete(f"/api/v1/namespaces/{self.namespace}")
        self.api.delete(f"/api/v1/persistentvolumes/data-{self.namespace}")


def is_over(job: dict[str, Any]) -> bool:
    """Whether a Job has come to its end."""
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


@pytest.fixture
def cluster(
    plane: ControlPlane, wires: Network, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """Three nodes, in a project of its own."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    for name in ("TRADEWIND_STORE", "TRADEWIND_BLOBS"):
        monkeypatch.delenv(name, raising=False)
    built = Cluster(plane, wires, tmp_path)
    yield built
    built.close()


def check(found: Finished, calm: Finished) -> None:
    """It ended well, with the weights and the samples of an undisturbed run."""
    assert found.code == 0, found.output
    assert found.weights == calm.weights
    check_exactly_once(found)


def test_a_killed_pod_is_replaced_alone(cluster: Cluster, calm: Finished) -> None:
    """The host that stayed keeps its pod and waits; the Job makes the other anew, and training goes on bitwise."""
    cluster.submit(PLAN="WAIT=20", EVERY="4")
    cluster.wait_for("checkpoint")
    stays, dies = cluster.pod(0), cluster.pod(1)
    dies.kill()
    cluster.wait_for("host_lost")
    cluster.wait_for("host_came", 2)
    cluster.go_on()
    check(cluster.finish(), calm)
    assert stays.exit_code == 0
    assert dies.exit_code == -signal.SIGKILL


def test_a_lost_node_is_left_for_another(cluster: Cluster, calm: Finished) -> None:
    """When a node and its pod are gone the pod is made on another node, and finds the group that waits for it."""
    cluster.submit(PLAN="WAIT=20", EVERY="4")
    cluster.wait_for("checkpoint")
    lost = cluster.node_of(cluster.pod(1))
    lost.lose()
    taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
    # As whoever has seen that the machine is off says it; without that word nobody may take its pods for gone.
    cluster.api.patch(f"/api/v1/nodes/{lost.name}", {"spec": {"taints": [taint]}})
    cluster.wait_for("host_came", 2)
    assert cluster.node_of(cluster.pod(1)) is not lost
    cluster.go_on()
    check(cluster.finish(), calm)


def test_a_pod_that_is_evicted_commits_first(cluster: Cluster, calm: Finished) -> None:
    """A deleted pod gets its grace: all hosts commit the same step and ask to be run again, and nothing is redone."""
    cluster.submit(PLAN="SLOW=0.2", EVERY="1000")
    cluster.wait_for("step", 2)
    cluster.api.delete(
        f"/api/v1/namespaces/{cluster.namespace}/pods/{cluster.pod(1).pod['metadata']['name']}"
    )
    found = cluster.finish()
    check(found, calm)
    assert found.of("asked")
    stopped = [event.data["step"] for event in found.of("resume")]
    assert stopped
    assert len(set(stopped)) == 1
