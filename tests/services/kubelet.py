"""A small kubelet whose containers are processes: real exit codes, signals, logs, addresses and lost nodes.

It registers a node, keeps its lease, and runs the pods that the scheduler binds to it, each container as a
process in the node's network namespace and a mount namespace of its own, where the pod's volumes lie at their
paths. Images are not pulled: what a container names as its command must be on this machine. `runAsUser`,
read-only root file systems and resource limits are not enforced, of the probes only readiness is asked (oftener
than its period says), and a container is not restarted in place. A pod's address is its node's, and as there is no cluster
DNS the names of pods behind a headless Service are kept in the `/etc/hosts` that all pods see.
"""

import base64
import contextlib
import datetime
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.services.kube_api import ApiError, KubeApi, Object
from tests.services.kubelet_logs import FileLog, KubeletLogs
from tests.services.namespaces import Network

LEASE_S = 2.0
PROBE_S = 0.2
_MOUNTS = """
mount --make-rprivate /
mount -t tmpfs sources /mnt
i=0
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir "/mnt/$i"; else touch "/mnt/$i"; fi
  mount --rbind "$1" "/mnt/$i"
  shift
  i=$((i + 1))
done
shift
i=0
while [ "$1" != -- ]; do
  if [ -d "/mnt/$i" ]; then mkdir -p "$1"; fi
  mount --rbind "/mnt/$i" "$1"
  shift
  i=$((i + 1))
done
shift
cd "$1"
shift
exec "$@"
"""
"""Sources until `--`, as many targets until `--`, then the working directory and the command. All sources are
held first: what is mounted at `/tmp`, say, may hide others."""


class Hosts:
    """What names mean in all pods: one file, changed in place, so that who has it mounted sees it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = folder / "hosts"
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()
        self._write()

    def set(self, name: str, address: str) -> None:
        """From now on `name` is at `address`."""
        with self._lock:
            self._names[name] = address
            self._write()

    def _write(self) -> None:
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self._names.items())]
        self.path.write_text("\n".join(lines) + "\n")


class Kubelet:
    """One node, until `close` or `lose`."""

    def __init__(
        self,
        api: KubeApi,
        folder: pathlib.Path,
        hosts: Hosts,
        network: Network,
        index: int,
        *,
        gpus: int = 0,
        labels: dict[str, str] | None = None,
        logs: KubeletLogs | None = None,
    ) -> None:
        """`logs` serves what its containers print, for all nodes that are given it."""
        self.name = f"{network.names[index]}-{secrets.token_hex(2)}"
        self.address = network.addresses[index]
        self.pods: dict[str, RunningPod] = {}
        """By uid."""
        self.logs = logs
        self._api, self._folder, self._hosts = api, folder / self.name, hosts
        self._network, self._index = network, index
        self._ending = threading.Event()
        self._folder.mkdir(parents=True)
        self._register(gpus, labels or {})
        self._threads = [
            threading.Thread(target=work, name=f"{self.name}-{work.__name__}", daemon=True)
            for work in (self._keep_lease, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def _register(self, gpus: int, labels: dict[str, str]) -> None:
        room = {"cpu": "8", "memory": "64Gi", "pods": "20", "ephemeral-storage": "50Gi"}
        room |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
        about = {"name": self.name, "labels": {"kubernetes.io/hostname": self.name} | labels}
        self._api.create({"apiVersion": "v1", "kind": "Node", "metadata": about})
        now = _now()
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        status = {"capacity": room, "allocatable": room, "conditions": [ready]}
        status["addresses"] = [{"type": "InternalIP", "address": "127.0.0.1" if self.logs else self.address}]
        if self.logs:  # Where the API server finds them; it is in no node's network.
            status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": self.logs.port}}
        self._api.patch(f"/api/v1/nodes/{self.name}/status", {"status": status})
        lease = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": _now_micro()}
        self._api.create(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.name, "namespace": "kube-node-lease"},
                "spec": lease,
            }
        )

    def _keep_lease(self) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}"
        while not self._ending.wait(LEASE_S):
            with contextlib.suppress(ApiError):
                self._api.patch(path, {"spec": {"renewTime": _now_micro()}})

    def _watch(self) -> None:
        """Start what is bound to this node, and end what is deleted."""
        while not self._ending.is_set():
            # A short watch: at its end it is seen whether the node is to go.
            watched = self._api.watch("/api/v1/pods", 5, fieldSelector=f"spec.nodeName={self.name}")
            with contextlib.suppress(ApiError):
                for pods in watched:
                    if self._ending.is_set():
                        break
                    self._look(pods)

    def _look(self, pods: Sequence[Object]) -> None:
        for pod in pods:
            uid = pod["metadata"]["uid"]
            if uid not in self.pods and "deletionTimestamp" not in pod["metadata"]:
                folder = self._folder / uid
                self.pods[uid] = RunningPod(self._api, pod, folder, self)
            if uid in self.pods and "deletionTimestamp" in pod["metadata"]:
                self.pods[uid].delete(pod["metadata"].get("deletionGracePeriodSeconds", 30))
        for uid in self.pods.keys() - {pod["metadata"]["uid"] for pod in pods}:
            self.pods[uid].kill()

    def command(self, mounts: Sequence[tuple[str, str]], cwd: str, command: Sequence[str]) -> list[str]:
        """A command in this node's network, with these sources mounted at these targets."""
        pairs = sorted((*mounts, (str(self._hosts.path), "/etc/hosts")), key=lambda pair: len(pair[1]))
        sources, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        shell = ["unshare", "--mount", "sh", "-ec", _MOUNTS, "kubelet"]
        return self._network.command(self._index, *shell, *sources, "--", *targets, "--", cwd, *command)

    def get(self, port: int, path: str) -> int:
        """The status with which a server on this node answers; 0 when it does not."""
        try:
            with self._network.connect(self._index, self.address, port) as made:
                made.sendall(f"GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n".encode())
                return int(made.recv(4096).split(b" ", 2)[1])
        except (OSError, IndexError, ValueError):
            return 0

    def named(self, name: str) -> None:
        """A pod of this node is known by a name."""
        self._hosts.set(name, self.address)

    def lose(self) -> None:
        """The node is gone: nothing of it runs, and nobody says so."""
        self._ending.set()
        for pod in self.pods.values():
            pod.lose()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """End everything, and take the node out of the cluster."""
        self.lose()
        for path in (
            f"/api/v1/nodes/{self.name}",
            f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}",
        ):
            with contextlib.suppress(ApiError):
                self._api.delete(path)


class RunningPod:
    """A pod on a node: its init containers one after another, then its containers."""

    def __init__(self, api: KubeApi, pod: Object, folder: pathlib.Path, node: Kubelet) -> None:
        self.pod, self.folder = pod, folder
        self.path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        self._api, self._node = api, node
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._deleted = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name=pod["metadata"]["name"], daemon=True)
        self._thread.start()

    @property
    def log(self) -> str:
        """What its containers have printed."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    @property
    def alive(self) -> bool:
        """Whether something of it still runs."""
        return self._thread.is_alive()

    @property
    def exit_code(self) -> int | None:
        """Of the process that ran last; None while it runs."""
        return None if self._process is None else self._process.poll()

    def _run(self) -> None:
        spec = self.pod["spec"]
        self.folder.mkdir(parents=True)
        try:
            volumes = self._volumes()
        except ApiError as error:
            self._say({"phase": "Pending", "reason": "FailedMount", "message": str(error)})
            return
        self._name()
        for number, container in enumerate(spec.get("initContainers", ())):
            code = self._execute(container, volumes, f"{number}-{container['name']}")
            if code:
                self._ended("Failed", "initContainerStatuses", container, code)
                return
        (container,) = spec["containers"]
        code = self._execute(container, volumes, f"9-{container['name']}")
        self._ended("Failed" if code else "Succeeded", "containerStatuses", container, code)

    def _name(self) -> None:
        spec, meta = self.pod["spec"], self.pod["metadata"]
        if "hostname" in spec and "subdomain" in spec:
            short = f"{spec['hostname']}.{spec['subdomain']}"
            for name in (
                short,
                f"{short}.{meta['namespace']}.svc",
                f"{short}.{meta['namespace']}.svc.cluster.local",
            ):
                self._node.named(name)

    def _execute(self, container: Object, volumes: dict[str, pathlib.Path], log: str) -> int:
        """Run a container to its end; its exit code, a signal as 128 + its number."""
        mounts = [
            (str(volumes[mount["name"]] / mount.get("subPath", "")), mount["mountPath"])
            for mount in container.get("volumeMounts", ())
        ]
        command = self._node.command(
            [*mounts, *_kept(mounts)],
            container.get("workingDir", "/"),
            [*container["command"], *container.get("args", ())],
        )
        with self._lock:
            if self._deleted.is_set():
                return 128 + signal.SIGTERM
            with (self.folder / f"{log}.log").open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    env={"PATH": os.environ["PATH"]} | self._environment(container),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            process = self._process
        if self._node.logs:
            ended = FileLog(self.folder / f"{log}.log", lambda: process.poll() is not None)
            self._node.logs.logs[self.pod["metadata"]["name"], container["name"], False] = ended
        if log.startswith("9-"):
            self._say(_running(container, "readinessProbe" not in container))
            if "readinessProbe" in container:
                threading.Thread(target=self._probe, args=(container, process), daemon=True).start()
        code = process.wait()
        return 128 - code if code < 0 else code

    def _probe(self, container: Object, process: subprocess.Popen[bytes]) -> None:
        """Say whether it is ready whenever that changes, for as long as it runs."""
        get = container["readinessProbe"]["httpGet"]
        ports = {port.get("name"): port["containerPort"] for port in container.get("ports", ())}
        was = False
        while process.poll() is None and not self._lost:
            ready = self._node.get(ports.get(get["port"], get["port"]), get["path"]) == 200
            if ready is not was and process.poll() is None:
                was = ready
                self._say(_running(container, ready))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PROBE_S)

    def _environment(self, container: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            if "secretRef" in source:
                found |= self._secret(source["secretRef"]["name"])
        for variable in container.get("env", ()):
            found[variable["name"]] = self._value(variable)
        return found

    def _value(self, variable: Object) -> str:
        origin = variable.get("valueFrom")
        if origin is None:
            return str(variable.get("value", ""))
        if "secretKeyRef" in origin:
            return self._secret(origin["secretKeyRef"]["name"])[origin["secretKeyRef"]["key"]]
        path = origin["fieldRef"]["fieldPath"]
        own = {"status.podIP": self._node.address, "status.hostIP": self._node.address}
        if path in own:
            return own[path]
        if path.endswith("']"):
            table, _, key = path.removesuffix("']").partition("['")
            return str(_at(self.pod, table)[key])
        return str(_at(self.pod, path))

    def _secret(self, name: str) -> dict[str, str]:
        data = self._of("secrets", name).get("data", {})
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def _of(self, kind: str, name: str) -> Object:
        return self._api.get(f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/{kind}/{name}")

    def _volumes(self) -> dict[str, pathlib.Path]:
        return {volume["name"]: self._volume(volume) for volume in self.pod["spec"].get("volumes", ())}

    def _volume(self, volume: Object) -> pathlib.Path:
        """The folder that holds a volume's content."""
        if "persistentVolumeClaim" in volume:
            claim = self._of("persistentvolumeclaims", volume["persistentVolumeClaim"]["claimName"])
            found = self._api.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
            return pathlib.Path(found["spec"]["hostPath"]["path"])
        in_memory = volume.get("emptyDir", {}).get("medium") == "Memory"
        folder = pathlib.Path("/dev/shm", f"pod-{self.pod['metadata']['uid']}") if in_memory else self.folder
        folder = folder / f"volume-{volume['name']}"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        for source in volume.get("projected", {}).get("sources", [volume]):
            if "configMap" in source:
                self._write_config(source["configMap"], folder)
            if "secret" in source:
                for key, text in self._secret(source["secret"]["secretName"]).items():
                    (folder / key).write_text(text)
        return folder

    def _write_config(self, source: Object, folder: pathlib.Path) -> None:
        found = self._of("configmaps", source["name"])
        for key, text in found.get("data", {}).items():
            (folder / key).write_text(text)
        for key, data in found.get("binaryData", {}).items():
            (folder / key).write_bytes(base64.b64decode(data))

    def _ended(self, phase: str, field: str, container: Object, code: int) -> None:
        reason = "Completed" if code == 0 else "Error"
        state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": _now()}}
        status = {"name": container["name"], "ready": False, "started": False, "restartCount": 0}
        status |= {"image": container["image"], "imageID": "", "state": state}
        self._say({"phase": phase, field: [status], "conditions": _conditions(False)})
        self._clean()
        if self._deleted.is_set():
            self._confirm()

    def _say(self, status: Object) -> None:
        if self._lost:
            return
        address = {"podIP": self._node.address, "podIPs": [{"ip": self._node.address}]}
        # Strategic, so that conditions which others set (`DisruptionTarget`) stay.
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        with contextlib.suppress(ApiError):  # It is deleted.
            self._api.call("PATCH", f"{self.path}/status", {"status": address | status}, headers=headers)

    def _confirm(self) -> None:
        if not self._lost:
            with contextlib.suppress(ApiError):
                self._api.delete(self.path, grace_s=0)

    def _clean(self) -> None:
        shutil.rmtree(f"/dev/shm/pod-{self.pod['metadata']['uid']}", ignore_errors=True)

    def delete(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace period; the pod goes once its processes have."""
        with self._lock:
            if self._deleted.is_set():
                return
            self._deleted.set()
        if not self._thread.is_alive():
            self._confirm()
            return
        threading.Thread(target=self._end, args=(grace_s,), daemon=True).start()

    def _end(self, grace_s: float) -> None:
        (container,) = self.pod["spec"]["containers"]
        before_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        self._wait(min(before_s, grace_s))
        self.signal(signal.SIGTERM)
        self._wait(grace_s - before_s)
        self.kill()

    def _wait(self, timeout_s: float) -> None:
        """Until its process has ended, or for so long."""
        if self._process is not None and timeout_s > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)

    def signal(self, signum: int) -> None:
        """A signal to the container's first process, as the runtime sends it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)

    def kill(self) -> None:
        """SIGKILL to everything that runs in the pod."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def lose(self) -> None:
        """It is gone with its node: nothing more is said of it."""
        self._lost = True
        self._deleted.set()
        self.kill()
        self._thread.join()
        self._clean()


def _kept(mounts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What volumes would hide of what the containers' Python needs: mounted again on top of them."""
    root = pathlib.Path(__file__).parents[2]
    needed = dict.fromkeys([pathlib.Path(sys.prefix), pathlib.Path(sys.base_prefix), root / "src"])
    hidden = [path for path in needed if any(path.is_relative_to(target) for _, target in mounts)]
    return [(str(path), str(path)) for path in hidden]


def _running(container: Object, ready: bool) -> Object:
    """What is said of a pod whose container runs."""
    about = {"name": container["name"], "ready": ready, "started": True, "restartCount": 0}
    about |= {"image": container["image"], "imageID": "", "state": {"running": {"startedAt": _now()}}}
    return {"phase": "Running", "containerStatuses": [about], "conditions": _conditions(ready)}


def _conditions(ready: bool) -> list[Object]:
    """Whether a pod can be sent requests."""
    said = {"status": str(ready), "lastTransitionTime": _now()}
    return [{"type": kind} | said for kind in ("ContainersReady", "Ready")]


def _at(tree: Object, path: str) -> Any:
    found: Any = tree
    for part in path.split("."):
        found = found[part]
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _now_micro() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
