"""Logs of hosts through the real API server: from pending onwards, over replaced pods, first failure first."""

import queue
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.launch.kubernetes.builders import context, request
from tests.services.kubelet_logs import KubeletLogs
from tests.services.kubernetes import ControlPlane
from tradewind.launch.kubernetes.cluster import Cluster
from tradewind.launch.kubernetes.logs import Line, follow, print_lines
from tradewind.launch.kubernetes.request import Request
from tradewind.launch.kubernetes.submit import create
from tradewind.spec import Placement, RunSpec

pytest.importorskip("lightkube", reason="KUBERNETES IS NOT TESTED: lightkube is not installed")


class Hosts:
    """A run's pods on one node of the test's own; the test says what the kubelet says of them."""

    def __init__(self, plane: ControlPlane, logs: KubeletLogs, namespace: str, request: Request) -> None:
        self.plane, self.logs, self.request = plane, logs, request
        self.node = f"node-{namespace}"
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self.has_node = False

    def add_node(self) -> None:
        """A node, ready at once, whose kubelet serves the test's logs."""
        self.has_node = True
        self.plane.add_node(self.node, labels={"pool": self.node}, kwok=False)
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        endpoint = {"kubeletEndpoint": {"Port": self.logs.port}}
        ready = [{"type": "Ready", "status": "True", "reason": "Test"}]
        status = {"addresses": addresses, "daemonEndpoints": endpoint, "conditions": ready}
        self.plane.api.patch(f"/api/v1/nodes/{self.node}/status", {"status": status})
        # The controller manager taints a node until it sees it ready; the test is about other things.
        self.plane.api.patch(f"/api/v1/nodes/{self.node}", {"spec": {"taints": None}})

    def bound(self, index: int, but: str = "") -> str:
        """The name of host `index`'s pod once it is on the node."""

        def found(items: list[dict[str, Any]]) -> list[str]:
            return [
                p["metadata"]["name"]
                for p in items
                if p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == str(index)
                and p["spec"].get("nodeName")
                and p["metadata"]["name"] != but
            ]

        return found(self.plane.api.wait(self.pods, found))[0]

    def says(self, pod: str, state: dict[str, Any], phase: str = "Running", restarts: int = 0) -> None:
        """The state of a pod's agent."""
        about = {"name": "agent", "image": "i", "imageID": "", "ready": False, "restartCount": restarts}
        status = {"phase": phase, "containerStatuses": [about | {"state": state}]}
        self.plane.api.patch(f"{self.pods}/{pod}/status", {"status": status})

    def runs(self, pod: str) -> None:
        """The agent runs."""
        self.says(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}})

    def ends(self, pod: str, code: int, at: str = "2026-01-01T00:00:09Z", restarts: int = 0) -> None:
        """The agent has ended."""
        self.logs.log(pod).write("", end=True)
        ended = {"terminated": {"exitCode": code, "reason": "Error", "finishedAt": at}}
        self.says(pod, ended, "Failed" if code else "Succeeded", restarts)


@pytest.fixture
def hosts(kubernetes: ControlPlane, kubelet_logs: KubeletLogs, namespace: str) -> Iterator[Hosts]:
    """A run of two hosts that is made, without a node as yet."""
    selector = Placement(image="i", node_selector={"pool": f"node-{namespace}"})
    on = context(kubeconfig=str(kubernetes.kubeconfig), namespace=namespace, placement=selector)
    of = request(RunSpec(script="train.py", hosts=2, workers=2), on=on)
    with Cluster(on) as cluster:
        create(of, cluster, {})
    made = Hosts(kubernetes, kubelet_logs, namespace, of)
    yield made
    if made.has_node:
        kubernetes.api.delete(f"/api/v1/nodes/{made.node}")


class Reader:
    """`logs -f` in a thread of its own; what it emits is waited for."""

    def __init__(self, request: Request, host: int | None = None) -> None:
        self._lines: queue.SimpleQueue[Line | BaseException | None] = queue.SimpleQueue()
        self.seen: list[Line] = []
        self._thread = threading.Thread(target=self._read, args=(request, host))
        self._thread.start()

    def _read(self, request: Request, host: int | None) -> None:
        try:
            with Cluster(request.context) as cluster:
                follow(request.run, cluster, self._lines.put, host)
            self._lines.put(None)
        except Exception as error:  # noqa: BLE001 - the test's own thread raises it
            self._lines.put(error)

    def until(self, text: str) -> Line:
        """The next line in which this pattern is found."""
        while True:
            try:
                line = self._lines.get(timeout=60)
            except queue.Empty:
                raise TimeoutError(f"{text!r} did not come; seen: {self.seen}") from None
            assert isinstance(line, Line), f"ended with {line!r} before {text!r} came; seen: {self.seen}"
            self.seen.append(line)
            if re.search(text, line.text):
                return line

    def ended(self) -> list[str]:
        """What was still to come, once the reader has ended by itself."""
        self._thread.join(60)
        rest = []
        while (line := self._lines.get(timeout=1)) is not None:
            assert isinstance(line, Line), line
            rest.append(line.text)
        return rest


def test_logs_are_followed_from_pending_to_the_end(hosts: Hosts) -> None:
    """Why hosts wait is said, then every line as it is written, over a replaced pod, until the Job is over."""
    reader = Reader(hosts.request)
    # With gangs switched on and no node at all, Kubernetes 1.37 calls it an error of the scheduler.
    assert reader.until("Unschedulable|SchedulerError").about
    hosts.add_node()
    first, other = hosts.bound(0), hosts.bound(1)
    hosts.logs.log(first).write("hello from 0\n")
    hosts.runs(first)
    assert reader.until("hello from 0") == Line(0, "hello from 0")
    hosts.logs.log(other).write("hello from 1\n")
    hosts.runs(other)
    assert reader.until("hello from 1").host == 1
    hosts.logs.log(first).write("step 2\n")
    reader.until("step 2")
    hosts.ends(first, 75)
    second = hosts.bound(0, but=first)
    hosts.logs.log(second).write("again\nlast words\n")
    hosts.runs(second)
    reader.until("again")
    for pod in (second, other):
        hosts.ends(pod, 0)
    assert "last words" in reader.ended()


def test_only_one_host_is_followed(hosts: Hosts) -> None:
    """With a host given nothing of the others is read."""
    hosts.add_node()
    for index in (0, 1):
        pod = hosts.bound(index)
        hosts.logs.log(pod).write(f"from {index}\n")
        hosts.runs(pod)
    reader = Reader(hosts.request, host=1)
    reader.until("from 1")
    for index in (0, 1):
        hosts.ends(hosts.bound(index), 0)
    reader.ended()
    assert {line.host for line in reader.seen} == {1}


def test_the_first_failure_comes_first(hosts: Hosts) -> None:
    """After the end: the host that failed before the other, then all logs, a container's earlier life included."""
    hosts.add_node()
    pods = [hosts.bound(0), hosts.bound(1)]
    for index, pod in enumerate(pods):
        hosts.logs.log(pod).write(f"from {index}\n")
    hosts.logs.log(pods[1], previous=True).write("before the restart\n")
    hosts.ends(pods[1], 134, at="2026-01-01T00:00:01Z", restarts=1)
    hosts.ends(pods[0], 1, at="2026-01-01T00:00:02Z")
    with Cluster(hosts.request.context) as cluster:
        found = list(print_lines(hosts.request.run, cluster))
    assert (found[0].host, found[0].text) == (1, "first failure: host 1: agent ended with 134")
    texts = [line.text for line in found]
    assert texts.index("before the restart") < texts.index("from 1")
    assert "from 0" in texts


def test_a_log_that_is_lost_is_said_and_the_others_go_on(hosts: Hosts) -> None:
    """A node that serves no log costs a line of its own; the run's other hosts are still followed."""
    hosts.add_node()
    pods = [hosts.bound(0), hosts.bound(1)]
    hosts.runs(pods[0])
    hosts.logs.log(pods[1]).write("still here\n")
    reader = Reader(hosts.request)
    assert reader.until("its log cannot be read").host == 0
    hosts.runs(pods[1])
    reader.until("still here")
    for pod in pods:
        hosts.ends(pod, 0)
    reader.ended()
