"""The kubelet of tests: what its containers see, and what it says of their ends."""

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.kubelet import Hosts, Kubelet
from tests.services.kubernetes import ControlPlane
from tests.services.namespaces import Network, network


@pytest.fixture(scope="module")
def wires() -> Iterator[Network]:
    with network(2) as built:
        yield built


@pytest.fixture
def node(kubernetes: ControlPlane, wires: Network, tmp_path: pathlib.Path) -> Iterator[Kubelet]:
    """One node."""
    made = Kubelet(kubernetes.api, tmp_path, Hosts(tmp_path), wires, 0)
    yield made
    made.close()


def pod(node: Kubelet, program: str, **fields: Any) -> dict[str, Any]:
    """A pod on this node whose one container is a Python program."""
    container = {"name": "main", "image": "none", "command": [sys.executable, "-c", program]}
    container |= fields.pop("container", {})
    spec = {"nodeName": node.name, "restartPolicy": "Never", "containers": [container]} | fields
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}


def ended(kubernetes: ControlPlane, namespace: str) -> dict[str, Any]:
    """The pod, once it has ended."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    (found,) = kubernetes.api.wait(
        path, lambda pods: pods[0]["status"].get("phase") in ("Failed", "Succeeded")
    )
    return found


def test_exit_codes_are_real(kubernetes: ControlPlane, namespace: str, node: Kubelet) -> None:
    """A container's exit code is its process's, and the pod failed by it."""
    kubernetes.api.create(pod(node, "print('bye'); raise SystemExit(65)"), namespace)
    found = ended(kubernetes, namespace)
    assert found["status"]["phase"] == "Failed"
    assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 65
    (run,) = node.pods.values()
    assert run.log == "bye\n"


SEES = """
import os, pathlib, socket
print(pathlib.Path("/tmp/conf/key").read_text(), os.environ["NAME"], os.environ["SECRET"])
print(pathlib.Path("/tmp").exists(), sorted(os.listdir("/tmp/conf")))
pathlib.Path("/dev/shm/mine").write_text("x")
print(os.listdir("/dev/shm"), socket.gethostbyname("h.s"), len(socket.if_nameindex()))
"""


def test_a_container_sees_its_volumes_environment_and_network(
    kubernetes: ControlPlane, namespace: str, node: Kubelet
) -> None:
    """ConfigMaps, Secrets, fields, memory of its own, its name and its own interfaces, and nothing of the host's."""
    for kind, data in (("ConfigMap", "data"), ("Secret", "stringData")):
        meta = {"name": "made"}
        body = {"apiVersion": "v1", "kind": kind, "metadata": meta, data: {"key": "value"}}
        kubernetes.api.create(body, namespace)
    mounts = [{"name": "conf", "mountPath": "/tmp/conf"}, {"name": "shm", "mountPath": "/dev/shm"}]
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "made", "key": "key"}}},
    ]
    volumes = [
        {"name": "conf", "configMap": {"name": "made"}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    own = {"volumeMounts": mounts, "env": env}
    body = pod(node, SEES, container=own, volumes=volumes, hostname="h", subdomain="s")
    kubernetes.api.create(body, namespace)
    assert ended(kubernetes, namespace)["status"]["phase"] == "Succeeded", next(iter(node.pods.values())).log
    (run,) = node.pods.values()
    assert run.log.splitlines() == [
        "value one value",
        "True ['key']",
        f"['mine'] {node.address} 2",
    ]
    assert not pathlib.Path("/dev/shm/mine").exists()


GRACE = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print('up', flush=True); time.sleep(60)"


def test_deletion_gives_grace(kubernetes: ControlPlane, namespace: str, node: Kubelet) -> None:
    """A deleted pod gets SIGTERM, and is gone when its process is."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    kubernetes.api.create(pod(node, GRACE), namespace)
    kubernetes.api.wait(path, lambda pods: pods[0]["status"].get("phase") == "Running")
    (run,) = node.pods.values()
    while "up" not in run.log:
        assert run.alive
    kubernetes.api.delete(f"{path}/one")
    kubernetes.api.wait(path, lambda pods: not pods)
    assert run.exit_code == 75
