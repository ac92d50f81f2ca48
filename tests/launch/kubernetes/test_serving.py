"""An endpoint on a real control plane, served by real processes on the nodes of tests/services/kubelet.py."""

import http.client
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.export import Dim, export

from tests.launch.kubernetes.nodes import Cluster
from tests.services.kube_api import KubeApi
from tests.services.kubernetes import ControlPlane
from tests.services.namespaces import Network, network
from tradewind.cli.main import invoke
from tradewind.models.write import write_package

pytestmark = pytest.mark.slow
NODES = 2


class Scaled(torch.nn.Module):
    """Multiplies by what it was built with, so that an answer tells of which model it is."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.by


def package(folder: pathlib.Path, by: float) -> pathlib.Path:
    """A package of one small program."""
    program = export(Scaled(by).eval(), (torch.ones(3, 2),), dynamic_shapes=({0: Dim("b", min=1)},))
    write_package(
        folder,
        name="scaled",
        task="generic",
        programs={"scaled": program},
        tensors={},
        vocabularies={},
        metrics={},
        lineage={},
        config={},
    )
    return folder


def described(folder: pathlib.Path, by: float, **more: Any) -> str:
    """A file that says which package to serve; the Secret says where Tradewind is on this machine."""
    about = {"model": str(package(folder, by)), "env_secrets": ["env"]} | more
    folder.with_suffix(".yaml").write_text(json.dumps(about))
    return str(folder.with_suffix(".yaml"))


@pytest.fixture
def cluster(
    kubernetes: ControlPlane, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Cluster, Network]]:
    """Two nodes with a GPU each, so that replicas that ask for one do not share an address."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with network(NODES) as wires:
        built = Cluster(kubernetes, wires, tmp_path, NODES)
        built.configure({})
        yield built, wires
        built.close()


class Client:
    """Sends requests one after another, as kube-proxy would spread them: to any replica that is ready."""

    def __init__(self, api: KubeApi, wires: Network, namespace: str) -> None:
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._api, self._wires, self._namespace = api, wires, namespace
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ending.set()
        self._thread.join()

    def addresses(self) -> list[str]:
        """Replicas that are ready, by the controllers' own word."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        return [
            address
            for part in self._api.items(path)
            for endpoint in part["endpoints"] or ()
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        ]

    def ask(self, address: str, priority: str | None = None) -> float:
        """One request on a connection of its own; what 1 becomes."""
        connection = http.client.HTTPConnection(address, 8080, timeout=20)
        # From a node that the address is not on or is, all the same: the network is one.
        connection.sock = self._wires.connect(0, address, 8080, 20)
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}
        try:
            body = json.dumps({"inputs": [tensor]})
            headers = {"x-deadline-ms": "15000"} | ({} if priority is None else {"x-priority": priority})
            connection.request("POST", "/v2/models/scaled/infer", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise OSError(f"{answer.status}: {said!r}")
            return float(json.loads(said)["outputs"][0]["data"][0])
        finally:
            connection.close()

    def _run(self) -> None:
        turn = 0
        while not self._ending.wait(0.02):
            for address in self.addresses()[turn % NODES :][:1] or self.addresses()[:1]:
                try:
                    self.answers.append(self.ask(address))
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(f"{address}: {error!r}")
            turn += 1


@pytest.mark.timeout(300)
def test_a_new_model_replaces_the_old_one_without_a_lost_request(
    cluster: tuple[Cluster, Network], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A probe turns ready, requests are answered, and none fails while another model takes over.

    The new one has classes of its own, which a Secret says.
    """
    nodes, wires = cluster
    classes = {"classes": [{"name": "gold"}, {"name": "rest"}], "default_class": "rest"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "classes"}}
    secret["stringData"] = {"endpoint.yaml": json.dumps(classes)}
    nodes.api.create(secret, nodes.namespace)
    flags = ["--replicas", "1", "--gpus", "1", "--slo", "5s"]
    assert invoke(["deploy", described(tmp_path / "double", 2.0), *flags]) == 0, nodes.said()
    client = Client(nodes.api, wires, nodes.namespace)
    (address,) = client.addresses()
    assert client.ask(address) == 2.0
    (old,) = nodes.running()
    with client:
        told = described(tmp_path / "triple", 3.0, endpoint={"secret": "classes"})
        assert invoke(["deploy", told, *flags]) == 0, nodes.said()
        ended = {"labelSelector": "tradewind.dev/endpoint=scaled"}
        nodes.api.wait(f"/api/v1/namespaces/{nodes.namespace}/pods", lambda pods: len(pods) == 1, **ended)
        (new,) = client.addresses()
        assert new != address
        assert client.ask(new, "gold") == 3.0
        with pytest.raises(OSError, match=r"400: .*must be one of gold, rest"):
            client.ask(new, "silver")
    assert not client.failures
    assert sorted(set(client.answers)) == [2.0, 3.0]
    assert old.exit_code == 0, old.log
    assert invoke(["undeploy", "scaled"]) == 0
    nodes.api.wait(f"/apis/apps/v1/namespaces/{nodes.namespace}/deployments", lambda left: not left)
