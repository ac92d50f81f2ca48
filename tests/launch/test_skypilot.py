"""SkyPilot tasks: loaded and placed by SkyPilot itself, on a real Kubernetes, and what a node does with one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from bench.peers.environments import SKY, environment
from tests.launch import recipe
from tests.launch.conftest import write
from tests.services.kubernetes import ControlPlane
from tradewind.cli.main import invoke
from tradewind.errors import MissingExtraError, SpecError
from tradewind.launch import skypilot
from tradewind.launch.kubernetes.preview import to_yaml
from tradewind.launch.kubernetes.unpack import unpack
from tradewind.spec import Placement, Resources, RunSpec, from_stored

CHECK = Path(__file__).parents[1] / "services" / "sky_check.py"
IMAGE = Placement(image="registry.example/train:1")


@pytest.fixture
def project(root: Path) -> Path:
    """A project with a script in a folder."""
    write(root, {"jobs/train.py": "print(1)\n", "lib.py": "x = 1\n"})
    return root


@pytest.fixture(scope="session")
def sky() -> Path:
    """SkyPilot's Python; it is installed once, beside and not into the project's environment."""
    absent = [name for name in ("socat", "nc") if shutil.which(name) is None]
    if absent:
        pytest.skip(
            f"SKYPILOT IS NOT TESTED: without {' and '.join(absent)} it has no Kubernetes; apt-get install socat netcat-openbsd"
        )
    try:
        return environment(*SKY) / "python"
    except subprocess.CalledProcessError as error:
        pytest.skip(f"SKYPILOT IS NOT TESTED: it cannot be installed: {error}")


def ask(sky: Path, task: dict[str, Any], folder: Path, plane: ControlPlane) -> dict[str, Any]:
    """What SkyPilot makes of a task."""
    path = folder / "task.yaml"
    path.write_text(to_yaml([task]))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env = clean | {
        "HOME": str(folder),
        "KUBECONFIG": str(plane.kubeconfig),
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
    }
    done = subprocess.run(
        [str(sky), "-P", str(CHECK), str(path)],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.rpartition("FOUND ")[2].splitlines()[0])
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_skypilot_loads_and_places_the_recipe(
    root: Path,
    tmp_path: Path,
    sky: Path,
    kwok: ControlPlane,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its loader takes every field of the recipe's task, and its optimizer a node of a real Kubernetes; what fits nowhere it refuses."""
    kwok.add_node("sky-node", cpus="64", memory="512Gi")
    kwok.api.wait("/api/v1/nodes", lambda nodes: any(map(is_ready, nodes)))
    recipe.copy_to(root)
    monkeypatch.chdir(root)
    spec = RunSpec(
        script=recipe.SCRIPT,
        args=recipe.Trained(workers=2, epochs=2, gates=()).flags,
        hosts=2,
        workers=2,
        max_restarts=5,
        placement=IMAGE,
        resources=Resources(cpus=2, memory_gib=4),
    )
    (root / "run.yaml").write_text(to_yaml([msgspec.to_builtins(spec)]))
    assert invoke(["render", "run.yaml", "--target", "skypilot"]) == 0
    task = yaml.safe_load(capsys.readouterr().out)
    found = ask(sky, task, tmp_path, kwok)
    assert (found["nodes"], found["cloud"], found["refused"]) == (2, "Kubernetes", "")
    assert found["name"] == task["name"]
    assert found["recovery"]["max_restarts_on_errors"] == 5
    assert found["recovery"]["recover_on_exit_codes"] == [75]
    check_carries(Path(task["file_mounts"][skypilot.PARTS]), spec)
    large = skypilot.rendered(msgspec.structs.replace(spec, resources=Resources(cpus=5000)), "sky")
    assert ask(sky, large, tmp_path, kwok)["refused"]
    kwok.api.delete("/api/v1/nodes/sky-node")


def check_carries(parts: Path, spec: RunSpec) -> None:
    """What the task mounts is the spec, and the recipe's code as it is here."""
    about = json.loads((parts / "run.json").read_text())
    sent = from_stored(RunSpec, about["spec"])
    assert (sent.script, sent.args, sent.hosts) == (spec.script, spec.args, spec.hosts)
    unpack(json.loads((parts / "snapshot.json").read_text()), str(parts), str(parts / "laid-out"))
    assert (parts / "laid-out" / recipe.SCRIPT).read_bytes() == Path(recipe.SCRIPT).read_bytes()


def is_ready(node: dict[str, Any]) -> bool:
    """Whether kwok has said that a node is there."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))


def test_the_same_input_gives_the_same_task(project: Path) -> None:
    """Rendered twice it is equal, and after an edit it is another run."""
    spec = RunSpec(script="train.py", hosts=2, workers=2)
    first = skypilot.rendered(spec, "sky", cwd=project / "jobs")
    assert skypilot.rendered(spec, "sky", cwd=project / "jobs") == first
    assert first["secrets"] == {"TRADEWIND_TOKEN": None}
    write(project, {"lib.py": "x = 2\n"})
    assert skypilot.rendered(spec, "sky", cwd=project / "jobs")["name"] != first["name"]


def test_a_node_lays_out_the_code_and_starts_its_agent(
    project: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task's own script, run by a shell as on a node: the code is there, and the agent is told who it is."""
    seen = tmp_path / "seen"
    python = tmp_path / "python"
    agent = f'printf "%s\\n" "$TRADEWIND_HOSTS" "$TRADEWIND_HOST" "$TRADEWIND_ADDRESS" "$*" > {seen}'
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *agent.fleet*) {agent};; *) exec {sys.executable} "$@";; esac\n'
    )
    python.chmod(0o755)
    write(
        home,
        {"contexts/here.yaml": json.dumps({"python": str(python), "run_root": str(tmp_path / "bucket")})},
    )
    task = skypilot.rendered(RunSpec(script="train.py", hosts=2, workers=2), "sky:here", cwd=project / "jobs")
    node = tmp_path / "node"
    (node / "tradewind").mkdir(parents=True)
    (node / "tradewind/parts").symlink_to(task["file_mounts"][skypilot.PARTS])
    env = {"HOME": str(node), "PATH": os.environ["PATH"], "SKYPILOT_NODE_RANK": "1"}
    env["SKYPILOT_NODE_IPS"] = "10.0.0.7\n10.0.0.8"
    subprocess.run(["bash", "-c", task["run"]], env=env, check=True, capture_output=True)
    run = node / "tradewind/run"
    assert (run / "code/jobs/train.py").read_text() == "print(1)\n"
    assert os.readlink(run / "checkpoints").startswith(str(tmp_path / "bucket"))
    hosts, host, address, command = seen.read_text().splitlines()
    assert (hosts, host, address) == ("10.0.0.7:29400,10.0.0.8:29400", "1", "10.0.0.8")
    assert command == f"-P -m tradewind.agent.fleet {node}/tradewind/parts/run.json {run}"


def test_what_skypilot_cannot_be_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs without a type, a context that is not there, and a missing `sky` are errors that say what to do."""
    gpus = RunSpec(script="train.py", resources=Resources(gpus=1))
    with pytest.raises(SpecError, match="gpu_type"):
        skypilot.rendered(gpus, "sky", cwd=project / "jobs")
    for on in ("sky:none", "sky:../x", "skies"):
        with pytest.raises(SpecError, match=on):
            skypilot.load_sky_context(on)
    task = skypilot.rendered(RunSpec(script="train.py"), "sky", cwd=project / "jobs")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingExtraError, match="skypilot"):
        skypilot.launch(task)
