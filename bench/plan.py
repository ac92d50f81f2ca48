"""How often `tradewind plan` is right about what can never fit, and how fast it, `why` and `ps` answer on a large cluster.

Right: 200 random clusters and requests (`tests/launch/kubernetes/random_clusters.py`: nodes of several shapes, taints,
labels, cordons, pods that hold room, DaemonSets, quotas, topologies, native gangs of 1 to 16 hosts) on a real control
plane. What holds room is then deleted and the run is submitted: it can never fit if the scheduler does not place all of
its hosts even then. `wrong_now` counts the cases whose moment was wrong: said to fit now and not placed beside what held
room, or the opposite.

Fast: 1,000 nodes of kwok, a pod on each, and 200 runs of two hosts that wait; each command is a process of its own, as
people type it. Beside them kubectl printing the nodes and all pods, which is what one would look through by hand.
"""

import concurrent.futures
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.harness import Figure, Options, interleave, main, say
from tests.launch.kubernetes.random_clusters import Decided, decide_all, holder
from tests.services.kubernetes import COMPONENTS, ControlPlane, binary, control_plane
from tests.services.kubernetes import Options as PlaneOptions
from tradewind.spec import Placement, Resources, RunSpec

NAME = "plan"
COMMAND = [sys.executable, "-c", "from tradewind.cli.main import main; main()"]
GPUS = 8
AT_ONCE = 8


def measure(options: Options) -> Mapping[str, Figure]:
    """Decide random cases beside the scheduler, then time the commands."""
    absent = [name for name in (*COMPONENTS, "kwok", "kubectl") if binary(name) is None]
    if absent:
        raise SystemExit(f"plan: {', '.join(absent)} neither in KUBEBUILDER_ASSETS nor on the PATH")
    with plane() as cases:
        decided = decide_all(cases, range(12 if options.quick else 200))
    with plane() as large:
        seconds = time_commands(large, options)
    return right(decided) | seconds


@contextlib.contextmanager
def plane() -> Iterator[ControlPlane]:
    """A control plane of its own, with native gangs."""
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        with control_plane(Path(folder), PlaneOptions(gangs=True)) as found:
            yield found


def right(decided: Sequence[Decided]) -> dict[str, Figure]:
    """How many cases there were of each kind, and how many were wrong."""
    for each in decided:
        if each.wrong:
            say(f"wrong ({each.wrong}): seed {each.drawn.seed}: {each.said.verdict}: {each.said.because}")
    return {
        "cases": count(len(decided)),
        "cases_never": count(sum(not each.ever_fits for each in decided)),
        "cases_later": count(sum(each.ever_fits and not each.fits_now for each in decided)),
        "cases_gangs": count(sum(each.drawn.spec.hosts > 1 for each in decided)),
        "wrong_never_fits": count(sum(each.wrong == "never" for each in decided)),
        "missed_never_fits": count(sum(each.wrong == "missed" for each in decided)),
        "wrong_now": count(sum(each.wrong == "now" for each in decided)),
    }


def count(number: int) -> Figure:
    return Figure(float(number), "", float(number), float(number), 1)


def time_commands(large: ControlPlane, options: Options) -> dict[str, Figure]:
    """The wall time of each command on a large cluster, and of the slowest in each round."""
    nodes, runs = (50, 10) if options.quick else (1000, 200)
    with tempfile.TemporaryDirectory(prefix="plan-home-") as folder:
        env = prepare(Path(folder), large, nodes, runs)
        kubectl = [str(binary("kubectl")), f"--kubeconfig={large.kubeconfig}", "get"]
        commands = {
            "plan": [*COMMAND, "plan", "train.py", "--on", "k8s", "--hosts", "2", "--gpus", str(GPUS)],
            "why": [*COMMAND, "why", "last"],
            "ps": [*COMMAND, "ps", "--all"],
            "kubectl": [*kubectl, "nodes,pods", "--all-namespaces", "-o", "json"],
        }
        taken = interleave(
            {name: lambda c=command: seconds(c, Path(folder), env) for name, command in commands.items()},  # type: ignore[misc]
            options.repeats,
        )
    ours = [max(each) for each in zip(taken["plan"], taken["why"], taken["ps"], strict=True)]
    figures = {f"seconds_{name}": Figure.of(values, "s") for name, values in taken.items()}
    return {"nodes": count(nodes), "seconds_1000_nodes": Figure.of(ours, "s")} | figures


def seconds(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> float:
    """Wall time of one command; raises when it does not answer (75: the run fits later)."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder / "project", env=env, capture_output=True)
    taken = time.perf_counter() - started
    if done.returncode not in (0, 75):
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    return taken


def prepare(folder: Path, large: ControlPlane, nodes: int, runs: int) -> dict[str, str]:
    """A cluster with nodes, a pod on each and runs that wait, known to a store; the environment of its user."""
    env = os.environ | {"TRADEWIND_HOME": str(folder / "home")}
    os.environ["TRADEWIND_HOME"] = env["TRADEWIND_HOME"]
    (folder / "home/contexts").mkdir(parents=True)
    (folder / "home/contexts/k8s.yaml").write_text(
        f"kubeconfig: {large.kubeconfig}\nnamespace: default\nplacement: {{image: 'train:1'}}\n"
    )
    (folder / "project").mkdir()
    (folder / "project/train.py").write_text("print(1)\n")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda number: add_node(large, number), range(nodes)))
        say(f"{nodes} nodes with a pod on each")
        list(pool.map(lambda _: submit_one(folder / "project"), range(runs)))
    refused = "/api/v1/namespaces/default/pods"
    large.api.wait(refused, lambda found: sum(is_refused(pod) for pod in found) >= runs, timeout_s=300)
    say(f"{runs} runs wait")
    return env


def add_node(large: ControlPlane, number: int) -> None:
    """A node of one of several racks, half of whose GPUs somebody holds."""
    name = f"node-{number}"
    large.add_node(name, gpus=GPUS, labels={"rack": f"r{number // 16}"})
    large.api.create(holder(f"{name}-held", name, GPUS // 2, 8, 32), "kube-system")


def submit_one(project: Path) -> None:
    """A run that waits: it asks for more GPUs on a host than any has free."""
    from tradewind.launch.kubernetes.submit import submit
    from tradewind.store import open_store

    spec = RunSpec(
        script="train.py",
        hosts=2,
        workers=2 * GPUS,
        resources=Resources(gpus=1, cpus=1, memory_gib=4),
        placement=Placement(image="train:1"),
    )
    with open_store() as store:
        submit(spec, "k8s", store, cwd=project)


def is_refused(pod: Mapping[str, object]) -> bool:
    """Whether the scheduler has said that it finds no node."""
    conditions = pod["status"].get("conditions", ())  # type: ignore[attr-defined]
    return any(each["type"] == "PodScheduled" and each["status"] == "False" for each in conditions)


if __name__ == "__main__":
    main(NAME, measure, packages=("msgspec", "lightkube", "httpx2"))
