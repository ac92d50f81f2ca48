"""`tradewind plan`: the exit code is the verdict, a table for people, the same words from `run --dry-run`."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Project
from tests.services.kubernetes import ControlPlane
from tradewind.cli.main import invoke
from tradewind.cli.plan import EXITS, duration
from tradewind.launch.kubernetes.situation import Verdict
from tradewind.names import ExitCode

ASKING = ["main.py", "--on", "k8s", "--hosts", "2", "--gpus", "4"]


def test_every_verdict_has_an_exit_code_of_its_own() -> None:
    """Programs tell them apart without reading."""
    assert set(EXITS) == set(Verdict)
    assert len(set(EXITS.values())) == len(EXITS)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (90, "1.5 min"), (5400, "1.5 h")])
def test_durations(seconds: float, text: str) -> None:
    """In the unit that people would use."""
    assert duration(seconds) == text


def test_without_on_it_is_this_machine(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """The same plan as `run --dry-run` here."""
    project("pass")
    capsys.readouterr()
    assert invoke(["plan", "main.py", "--workers", "2", "-o", "json"]) == ExitCode.OK
    planned = capsys.readouterr().out
    assert invoke(["run", "main.py", "--workers", "2", "-o", "json", "--dry-run"]) == ExitCode.OK
    assert capsys.readouterr().out == planned


def test_a_cluster_that_cannot_be_asked(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` fails and says where it looked; a dry run shows what it knows and that nobody was asked."""
    write_context(kubeconfig="/nowhere/config")
    project("pass")
    capsys.readouterr()
    assert invoke(["plan", *ASKING]) == ExitCode.USAGE
    assert "/nowhere/config" in capsys.readouterr().err
    assert invoke(["run", *ASKING, "--dry-run", "-o", "json"]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["hosts"], found["forecast"]) == (2, None)
    assert "/nowhere/config" in found["not_asked"]


def test_on_a_real_cluster(
    kwok: ControlPlane, namespace: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Room for two hosts, then for one now, then for none ever: 0, 75 and 4, and a dry run says the same."""
    pytest.importorskip("lightkube", reason="KUBERNETES IS NOT TESTED: lightkube is not installed")
    placement = {"image": "train:1", "node_selector": {"pool": namespace}}
    prices = {"nvidia.com/gpu": 2.5}
    write_context(kubeconfig=str(kwok.kubeconfig), namespace=namespace, placement=placement, prices=prices)
    project("pass")
    capsys.readouterr()
    for number in range(2):
        kwok.add_node(f"{namespace}-{number}", gpus=4, labels={"pool": namespace})
    kwok.api.wait("/api/v1/nodes", lambda found: all(map(is_open, found)), labelSelector=f"pool={namespace}")
    assert invoke(["plan", *ASKING]) == ExitCode.OK
    said = capsys.readouterr().out
    assert said.startswith(f"main fits now on k8s (namespace {namespace})\n")
    assert "costs    20.00 an hour" in said
    hold(kwok, namespace, f"{namespace}-1")
    assert invoke(["plan", *ASKING]) == ExitCode.REQUEUE
    assert f"must end first\n  {namespace}/holder  holds 1 nvidia.com/gpu" in capsys.readouterr().out
    assert invoke(["run", *ASKING, "--dry-run"]) == ExitCode.REQUEUE
    assert "main fits later on k8s" in capsys.readouterr().out
    assert invoke(["plan", "main.py", "--on", "k8s", "--hosts", "3", "--gpus", "4", "-o", "json"]) == 4
    found = json.loads(capsys.readouterr().out)["forecast"]
    assert found["outlook"]["verdict"] == "can never fit"
    assert found["outlook"]["changes"][-1] == "use 2 hosts: --hosts 2"
    for number in range(2):
        kwok.api.delete(f"/api/v1/nodes/{namespace}-{number}")


def is_open(node: dict[str, Any]) -> bool:
    """Whether the node takes pods."""
    return not node["spec"].get("taints")


def hold(plane: ControlPlane, namespace: str, node: str) -> None:
    """A pod that holds a GPU of a node."""
    container = {"name": "main", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "holder"}}
    plane.api.create(pod | {"spec": {"nodeName": node, "containers": [container]}}, namespace)
    plane.api.wait(f"/api/v1/namespaces/{namespace}/pods", bool)


def write_context(**fields: Any) -> None:
    """The context of a plain `--on k8s`, in the home folder of the project's tests."""
    folder = Path("../home/contexts")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "k8s.yaml").write_text(json.dumps({"placement": {"image": "train:1"}} | fields))
