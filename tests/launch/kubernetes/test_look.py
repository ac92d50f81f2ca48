"""What is made of a cluster's answers, where a real one cannot be brought to give them on purpose."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tradewind.errors import ClusterError
from tradewind.launch.kubernetes.cluster import Refused
from tradewind.launch.kubernetes.look import FLAVORS, NODES, PLACED, Source, look
from tradewind.launch.why.kinds import Node
from tradewind.launch.why.pods import Pod

OWN = Source("Pod", Pod, ("v1",), "pods", selects={"labelSelector": "own"}, fresh=True)


class Answers:
    """A cluster that answers by path, or refuses with a status."""

    namespace, url = "team", "https://cluster"

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def send(self, method: str, path: str, *, params: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        self.asked.append((path, params))
        found = self.answers["own" if "labelSelector" in params else path.rpartition("/")[2]]
        if isinstance(found, int):
            raise Refused(f"{path}: no", found)
        return json.dumps({"items": found}).encode()


def pod(phase: str) -> Any:
    return {"metadata": {"name": "train-0", "namespace": "team"}, "status": {"phase": phase}}


def test_what_is_read_as_it_is_now_wins() -> None:
    """A pod that the API server's cache still has as pending is what its own list says; only that one is read anew."""
    cluster: Any = Answers(pods=[pod("Pending")], own=[pod("Running")])
    found = look(cluster, (PLACED, OWN))
    assert [each.status.phase for each in found.world.all(Pod)] == ["Running"]
    by_version = {"labelSelector" in params: params.get("resourceVersion") for _, params in cluster.asked}
    assert by_version == {True: None, False: "0"}


def test_an_api_that_is_not_served_is_no_object_and_one_that_may_not_be_read_is_named() -> None:
    """404 in every version means that there is none; 403 means that nobody knows; anything else is an error."""
    cluster: Any = Answers(resourceflavors=404, nodes=403)
    found = look(cluster, (FLAVORS, NODES))
    assert found.world.complete == {"ResourceFlavor"}
    assert [path for path, _ in cluster.asked if "kueue" in path] == [
        "/apis/kueue.x-k8s.io/v1beta2/resourceflavors",
        "/apis/kueue.x-k8s.io/v1beta1/resourceflavors",
    ]
    assert len(found.unread) == 1
    assert found.unread[0].startswith("nodes may not be read: the verb `list`")
    broken: Any = Answers(nodes=500)
    with pytest.raises(ClusterError, match="no"):
        look(broken, (NODES,))


def test_an_answer_that_cannot_be_read_says_where_it_came_from() -> None:
    """What stands between a user and the API server may answer with anything."""
    cluster: Any = Answers(nodes=[{"metadata": "nonsense"}])
    with pytest.raises(ClusterError, match=r"https://cluster: GET /api/v1/nodes: its answer cannot be read"):
        look(cluster, (NODES,))
    assert look(Answers(nodes=None), (NODES,)).world.all(Node) == []  # type: ignore[arg-type]
