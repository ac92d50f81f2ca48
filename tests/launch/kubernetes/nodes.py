"""A cluster whose nodes run pods as processes of this machine, and the runs that are submitted to it."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import yaml

import tradewind
from tests.agent import training
from tests.agent.training import Finished
from tests.services.kubelet import Hosts, Kubelet, RunningPod
from tests.services.kubelet_logs import KubeletLogs
from tests.services.kubernetes import ControlPlane
from tests.services.namespaces import Network
from tradewind.store import Event, Run, open_store

TOLERATION = {"operator": "Exists", "effect": "NoExecute", "seconds": 1}
INDEX = "batch.kubernetes.io/job-completion-index"


class Cluster:
    """Nodes, a namespace with a volume, and the runs that are submitted to it."""

    def __init__(self, plane: ControlPlane, wires: Network, folder: pathlib.Path, nodes: int) -> None:
        self.plane, self.api, self.folder = plane, plane.api, folder
        self.namespace = plane.new_namespace()
        hosts = Hosts(folder)
        self._logs = KubeletLogs(plane.folder)
        self.nodes = [
            Kubelet(plane.api, folder / "nodes", hosts, wires, index, gpus=1, logs=self._logs)
            for index in range(nodes)
        ]
        self.volume = folder / "volume"
        (self.volume / "out").mkdir(parents=True)
        self.store = f"sqlite:///{self.volume}/store.db"
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

    def configure(self, env: Mapping[str, str]) -> None:
        """What holds for every run: a Secret with the pods' environment, and the context that names it."""
        known = {
            "PYTHONPATH": str(pathlib.Path(tradewind.__file__).parents[1]),
            "TRADEWIND_STORE": self.store,
            "OUT": str(self.volume / "out"),
            "OMP_NUM_THREADS": "1",
        }
        data = known | dict(env)
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "env"}, "stringData": data}
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

    def running(self) -> list[RunningPod]:
        """Pods that have not ended, wherever they are."""
        return [pod for node in self.nodes for pod in node.pods.values() if pod.alive]

    def pod(self, index: int) -> RunningPod:
        """The pod of a host of the one run that is there."""
        (found,) = [p for p in self.running() if p.pod["metadata"]["annotations"][INDEX] == str(index)]
        return found

    def node_of(self, pod: RunningPod) -> Kubelet:
        return next(node for node in self.nodes if pod in node.pods.values())

    def events(self, kind: str) -> list[Event]:
        """What the run's leader recorded so far."""
        if not (self.volume / "store.db").exists():
            return []
        with open_store(self.store) as store:
            return [event for run in store.runs() for event in store.events(run.id, kind=kind)]

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Return once so many events of a kind were recorded."""
        training.wait_until(
            lambda: len(self.events(kind)) >= count,
            lambda: f"fewer than {count} of {kind}\n{self.said()}",
            limit_s=60,
        )

    def go_on(self, gate: str = "go") -> None:
        """Let the step at which workers WAIT begin."""
        (self.volume / "out" / gate).touch()

    def runs(self) -> list[Run]:
        """All runs that are known, the newest first."""
        with open_store(self.store) as store:
            return store.runs()

    def job_of(self, run: str) -> str:
        """The path of a run's Job, once it is there."""
        (job,) = self.api.wait(self.jobs, bool, labelSelector=f"tradewind.dev/run={run}")
        return f"{self.jobs}/{job['metadata']['name']}"

    def finish(self, run: str) -> Finished:
        """Wait until the Job of a run is over."""
        about = {"labelSelector": f"tradewind.dev/run={run}"}
        try:
            (job,) = self.api.wait(self.jobs, lambda jobs: jobs and is_over(jobs[0]), timeout_s=150, **about)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None
        code = 0 if job["status"].get("succeeded") == job["spec"]["completions"] else 1
        with open_store(self.store) as store:
            return Finished(code, self.said(), store.run(run), list(store.events(run)), self.volume / "out")

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
        self._logs.stop()
        self.api.delete(f"/api/v1/namespaces/{self.namespace}")
        self.api.delete(f"/api/v1/persistentvolumes/data-{self.namespace}")


def is_over(job: dict[str, Any]) -> bool:
    """Whether a Job has come to its end."""
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)
