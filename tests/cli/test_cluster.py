"""`tradewind run --on k8s`, `render`, and the commands about runs on a cluster."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Project
from tests.services.kubernetes import ControlPlane
from tradewind.cli.main import invoke
from tradewind.cli.runs import read_spec
from tradewind.errors import SpecError


def said(capsys: pytest.CaptureFixture[str], *command: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert invoke([*command, "-o", "json"]) == code
    return json.loads(capsys.readouterr().out)


SIZES = [
    ({}, (1, 1, 0)),
    ({"workers": 3}, (1, 3, 0)),
    ({"hosts": 2}, (2, 2, 0)),
    ({"hosts": 2, "workers": 6}, (2, 6, 0)),
    ({"gpus": 8}, (1, 8, 1)),
    ({"hosts": 4, "gpus": 8}, (4, 32, 1)),
    ({"hosts": 2, "gpus": 8, "workers": 4}, (2, 4, 4)),
    ({"hosts": 2, "gpus": 0}, (2, 2, 0)),
]


@pytest.mark.parametrize(("flags", "expected"), SIZES)
def test_hosts_and_gpus_make_workers(flags: dict[str, int], expected: tuple[int, int, int]) -> None:
    """GPUs are of each host, workers of all hosts: one for each GPU, else one for each host."""
    spec = read_spec("train.py", (), **flags)
    assert (spec.hosts, spec.workers, spec.resources.gpus) == expected


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"hosts": 2, "workers": 3}, "3 cannot be spread evenly over 2 hosts"),
        ({"hosts": 1, "gpus": 8, "workers": 3}, "8 GPUs cannot be shared evenly"),
        ({"hosts": 0}, "ask for at least one host"),
        ({"gpus": -1}, "not for fewer than 0 GPUs"),
    ],
)
def test_what_cannot_be_shared_evenly_is_refused(flags: dict[str, int], problem: str) -> None:
    """Workers that do not divide among hosts, and GPUs that do not among workers, are named."""
    with pytest.raises(SpecError, match=problem):
        read_spec("train.py", (), **flags)


def test_without_a_place_all_hosts_are_this_machine(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workers of several hosts run here, and what spreads them is said."""
    project("pass")
    assert invoke(["run", "main.py", "--hosts", "2"]) == 0
    said = capsys.readouterr().err
    assert "all 2 workers of 2 hosts run on this machine; --on k8s spreads them" in said
    assert "(main), 2 workers" in said


def test_one_flag_makes_it_a_run_on_a_cluster(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command with --on plans for the cluster, reads the context, and asks no cluster."""
    project("pass")
    home = Path("../home/contexts")
    home.mkdir(parents=True)
    (home / "k8s.yaml").write_text("namespace: team\nplacement: {image: train:1}\n")
    found = said(capsys, "run", "main.py", "--hosts", "2", "--on", "k8s", "--dry-run")
    assert (found["image"], found["hosts"], found["workers"], found["script"]) == ("train:1", 2, 2, "main.py")
    assert said(capsys, "ps") == []


def test_render_prints_yaml(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments after the script reach the manifests, and the target is one of those that are listed."""
    project("pass")
    for target, kind in [
        ("k8s", "Job"),
        ("jobset", "JobSet"),
        ("trainjob", "TrainJob"),
        ("rayjob", "RayJob"),
    ]:
        capsys.readouterr()
        assert invoke(["render", "main.py", "--image", "i:1", "-t", target, "--", "--lr", "0.1"]) == 0
        objects = list(yaml.safe_load_all(capsys.readouterr().out))
        assert objects[-1]["kind"] == kind
        assert json.loads(objects[0]["data"]["run.json"])["spec"]["args"] == ["--lr", "0.1"]
    assert invoke(["render", "main.py", "--image", "i:1", "-t", "helm"]) == 2
    assert invoke(["render", "main.py"]) == 2
    assert "no image is named; give --image" in capsys.readouterr().err


def test_a_run_on_a_real_cluster(
    kubernetes: ControlPlane, namespace: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Detached it prints its id; ps and show know it; logs name what hosts wait for; stop ends it for good."""
    pytest.importorskip("lightkube", reason="KUBERNETES IS NOT TESTED: lightkube is not installed")
    write_context(kubernetes, namespace)
    project("pass")
    capsys.readouterr()
    assert invoke(["run", "main.py", "--hosts", "2", "--on", "k8s", "--detach"]) == 0
    run = capsys.readouterr().out.strip()
    pods = f"/api/v1/namespaces/{namespace}/pods"
    kubernetes.api.wait(pods, lambda found: len(found) == 2)
    assert [(r["id"], r["on"], r["state"]) for r in said(capsys, "ps")] == [(run, "k8s", "pending")]
    assert invoke(["logs", run]) == 0
    assert capsys.readouterr().err.count("[host") == 2
    assert invoke(["logs", run, "--rank", "2"]) == 2
    assert invoke(["logs", run, "--attempt", "0"]) == 2
    assert said(capsys, "stop", run)["state"] == "stopped"
    assert said(capsys, "show", run)["attempts"][0]["reason"] == "stopped by `tradewind stop`"
    assert invoke(["stop", run]) == 1


def test_a_run_that_is_followed_ends_with_its_exit_code(
    kubernetes: ControlPlane, namespace: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the foreground the command returns when the Job is over, with what the first failing host exited with."""
    pytest.importorskip("lightkube", reason="KUBERNETES IS NOT TESTED: lightkube is not installed")
    write_context(kubernetes, namespace)
    project("pass")
    pods = f"/api/v1/namespaces/{namespace}/pods"

    def fails() -> None:
        found = kubernetes.api.wait(pods, lambda items: len(items) == 1)
        ended = {"exitCode": 65, "reason": "Error", "finishedAt": "2026-01-01T00:00:09Z"}
        about = {"name": "agent", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": "Failed", "containerStatuses": [about | {"state": {"terminated": ended}}]}
        kubernetes.api.patch(f"{pods}/{found[0]['metadata']['name']}/status", {"status": status})

    kubelet = threading.Thread(target=fails)
    kubelet.start()
    assert invoke(["run", "main.py", "--on", "k8s"]) == 65
    kubelet.join()
    assert "failed: host 0: agent ended with 65" in capsys.readouterr().err


def write_context(plane: ControlPlane, namespace: str) -> None:
    """The context of a plain `--on k8s`, on hosts that no node is."""
    folder = Path("../home/contexts")
    folder.mkdir(parents=True, exist_ok=True)
    placement = {"image": "train:1", "node_selector": {"pool": "none"}}
    about = {"kubeconfig": str(plane.kubeconfig), "namespace": namespace, "placement": placement}
    (folder / "k8s.yaml").write_text(json.dumps(about))
