"""A real Kubernetes control plane on loopback: etcd, API server, scheduler, controller manager, and kwok's fake nodes.

The binaries are found in `KUBEBUILDER_ASSETS` or on the PATH; kwok is optional. There is no kubelet: a
test adds nodes with `ControlPlane.add_node`, and kwok (see `kwok.yaml`) says for them what a kubelet says.
"""

import contextlib
import csv
import dataclasses
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml

from tests.services.kube_api import KubeApi

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
STAGES = pathlib.Path(__file__).with_name("kwok.yaml")
FAKE_NODE = "kwok.x-k8s.io/node"
"""Annotation (`fake`) of a node that kwok keeps ready and whose pods kwok runs."""
HOLD = "tradewind.test/hold"
"""Annotation of a pod that kwok leaves alone: the test says what a kubelet would say about it."""
_USERS = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
}
_GANG_GATES = "GenericWorkload,WorkloadWithJob,TopologyAwareWorkloadScheduling,PodGroupPreemptionPolicy"
_GANG_APIS = "scheduling.k8s.io/v1beta1=true,scheduling.k8s.io/v1alpha3=true"


@dataclasses.dataclass(frozen=True)
class Options:
    """How a control plane differs from the released defaults."""

    gangs: bool = False
    """Native gang and topology-aware scheduling: `scheduling.k8s.io/v1beta1` PodGroup."""
    node_grace_s: int = 40
    """Seconds without a lease after which a node counts as lost."""
    api_args: Sequence[str] = ()
    scheduler_args: Sequence[str] = ()


def binary(name: str) -> str | None:
    """The path of one program, from `KUBEBUILDER_ASSETS` first."""
    return shutil.which(name, path=os.environ.get("KUBEBUILDER_ASSETS") or "/nowhere") or shutil.which(name)


class ControlPlane:
    """A running control plane: its kubeconfig, a client for it, its processes."""

    def __init__(self, folder: pathlib.Path, options: Options) -> None:
        self.folder, self.options = folder, options
        self.kubeconfig = folder / "admin.kubeconfig"
        self.ports = dict(zip((*COMPONENTS, "etcd-peer"), _free_ports(5), strict=True))
        self.url = f"https://127.0.0.1:{self.ports['kube-apiserver']}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.has_kwok = binary("kwok") is not None
        tokens = {user: secrets.token_hex(16) for user in _USERS}
        _write_secrets(folder, self.url, tokens)
        self.api = KubeApi(self.url, folder / "tls.crt", tokens["admin"])

    def start(self) -> None:
        """Start everything; returns when pods can be made and scheduled."""
        self._run("etcd", *_etcd_args(self.folder, self.ports))
        self._run("kube-apiserver", *_api_args(self.folder, self.ports, self.options), *self.options.api_args)
        self._until_ready()
        gates = _gates(self.options)
        self._run("kube-controller-manager", *_manager_args(self.folder, self.ports, self.options), *gates)
        scheduler = _client_args(self.folder, "kube-scheduler", self.ports)
        self._run("kube-scheduler", *scheduler, *gates, *self.options.scheduler_args)
        if self.has_kwok:
            self._run("kwok", *_kwok_args(self.kubeconfig))
        self.api.wait("/api/v1/namespaces/default/serviceaccounts", bool)

    def stop(self) -> None:
        """End every process that was started, the newest first."""
        self.api.close()
        for process in reversed(self.processes.values()):
            process.kill()  # Nothing of it is kept, and in good order the API server takes eight seconds.
            process.wait()

    def log(self, component: str) -> str:
        """What a component has written so far."""
        return (self.folder / f"{component}.log").read_text(errors="replace")

    def add_node(
        self,
        name: str,
        *,
        gpus: int = 0,
        cpus: str = "64",
        memory: str = "512Gi",
        labels: dict[str, str] | None = None,
        taints: Sequence[dict[str, str]] = (),
        kwok: bool = True,
        conditions: Sequence[dict[str, str]] = (),
    ) -> dict[str, Any]:
        """A node with room for pods, in these conditions; kwok makes it ready unless told not to."""
        room = {"cpu": cpus, "memory": memory, "pods": "110", "ephemeral-storage": "500Gi"}
        room |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
        metadata = {
            "name": name,
            "labels": {"kubernetes.io/hostname": name} | (labels or {}),
            "annotations": {FAKE_NODE: "fake"} if kwok else {},
        }
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": list(taints)}}
        node["status"] = {"capacity": room, "allocatable": room, "conditions": list(conditions)}
        return self.api.create(node)

    def new_namespace(self) -> str:
        """A namespace of its own, ready for pods."""
        name = f"test-{secrets.token_hex(4)}"
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        # What every pod mounts: the identity, and the certificate that a controller puts there a moment later.
        self.api.wait(f"/api/v1/namespaces/{name}/serviceaccounts", bool)
        self.api.wait(f"/api/v1/namespaces/{name}/configmaps", bool)
        return name

    def _run(self, name: str, *args: str) -> None:
        program = binary(name)
        assert program is not None, f"{name} is missing"
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [program, *args], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    def _until_ready(self, timeout_s: float = 120.0) -> None:
        end = time.monotonic() + timeout_s
        while not self.api.is_ready():
            if self.processes["kube-apiserver"].poll() is not None or time.monotonic() > end:
                raise RuntimeError(
                    f"the API server did not become ready:\n{self.log('kube-apiserver')[-2000:]}"
                )
            time.sleep(0.05)  # Nothing else tells that it listens.


@contextlib.contextmanager
def control_plane(folder: pathlib.Path, options: Options = Options()) -> Iterator[ControlPlane]:
    """A control plane that ends with the block; the test is skipped where a binary is missing."""
    absent = [name for name in COMPONENTS if binary(name) is None]
    if absent:
        pytest.skip(
            f"KUBERNETES IS NOT TESTED: {', '.join(absent)} neither in KUBEBUILDER_ASSETS nor on the PATH"
        )
    plane = ControlPlane(folder, options)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(folder / "etcd", ignore_errors=True)


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane with native gangs switched on, for all tests of a run."""
    with control_plane(tmp_path_factory.mktemp("kubernetes"), Options(gangs=True)) as plane:
        yield plane


@pytest.fixture(scope="session")
def plain_kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane with the gates as released, so without native gangs, for all tests of a run."""
    with control_plane(tmp_path_factory.mktemp("kubernetes"), Options()) as plane:
        yield plane


@pytest.fixture
def namespace(kubernetes: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own in `kubernetes`; what lies in it goes with it."""
    name = kubernetes.new_namespace()
    yield name
    kubernetes.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def kwok(kubernetes: ControlPlane) -> ControlPlane:
    """The control plane `kubernetes` with kwok beside it; the test is skipped without kwok."""
    if not kubernetes.has_kwok:
        pytest.skip("KUBERNETES NODES ARE NOT TESTED: kwok neither in KUBEBUILDER_ASSETS nor on the PATH")
    return kubernetes


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _write_secrets(folder: pathlib.Path, url: str, tokens: dict[str, str]) -> None:
    """A certificate that vouches for itself, a token for each user, and their kubeconfigs."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=kube-apiserver"
    extensions = (
        "subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc",
        "basicConstraints=critical,CA:true",
        "keyUsage=critical,digitalSignature,keyCertSign",
        "extendedKeyUsage=serverAuth",
    )
    added = [part for extension in extensions for part in ("-addext", extension)]
    files = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    subprocess.run([*command.split(), *files, *added], check=True, capture_output=True)
    with (folder / "tokens.csv").open("w", newline="") as file:
        for user, token in tokens.items():
            name, group = _USERS[user]
            csv.writer(file).writerow([token, name, user, group])
            (folder / f"{user}.kubeconfig").write_text(_kubeconfig(folder, url, token))


def _kubeconfig(folder: pathlib.Path, url: str, token: str) -> str:
    cluster = {"server": url, "certificate-authority": str(folder / "tls.crt")}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
    )


def _gates(options: Options) -> list[str]:
    gates = ",".join(f"{gate}=true" for gate in _GANG_GATES.split(","))
    return [f"--feature-gates={gates}"] if options.gangs else []


def _etcd_args(folder: pathlib.Path, ports: dict[str, int]) -> list[str]:
    client, peer = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{ports['etcd-peer']}"
    return [
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def _api_args(folder: pathlib.Path, ports: dict[str, int], options: Options) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{ports['etcd']}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={ports['kube-apiserver']}",
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={folder / 'tls.crt'}",
        f"--tls-private-key-file={folder / 'tls.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'tls.key'}",
        f"--service-account-signing-key-file={folder / 'tls.key'}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--kubelet-preferred-address-types=InternalIP",
        *_gates(options),
        *([f"--runtime-config={_GANG_APIS}"] if options.gangs else []),
    ]


def _client_args(folder: pathlib.Path, name: str, ports: dict[str, int]) -> list[str]:
    """What the controller manager and the scheduler share; the rate limits are no part of any test."""
    return [
        f"--kubeconfig={folder / f'{name}.kubeconfig'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports[name]}",
        "--leader-elect=false",
        "--kube-api-qps=300",
        "--kube-api-burst=500",
    ]


def _manager_args(folder: pathlib.Path, ports: dict[str, int], options: Options) -> list[str]:
    return [
        *_client_args(folder, "kube-controller-manager", ports),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={folder / 'tls.key'}",
        f"--root-ca-file={folder / 'tls.crt'}",
        f"--node-monitor-grace-period={options.node_grace_s}s",
        f"--node-monitor-period={min(5, max(1, options.node_grace_s // 8))}s",
    ]


def _kwok_args(kubeconfig: pathlib.Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--config={STAGES}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={FAKE_NODE}=fake",
        "--node-lease-duration-seconds=40",
        "--cidr=10.244.0.0/16",
        "--node-ip=127.0.0.1",
    ]
