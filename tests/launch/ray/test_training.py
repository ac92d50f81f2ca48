"""Training through a real Ray on this machine: the recipe on two hosts, with a worker killed, and a host."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.agent import training
from tests.agent.training import Finished
from tests.launch.recipe import Trained, go_on, package
from tests.services.ray_cluster import RayCluster
from tradewind.store import Event, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HOST = re.compile(r"host 1 is process (\d+)")
CONTEXT = """
address: {url}
strategy: {strategy}
start_deadline_s: {deadline_s}
scratch: {scratch}
run_root: {scratch}/shared
env: {{TRADEWIND_STORE: "{store}"}}
"""
TRAINED = Trained(workers=2, epochs=2, gates=(4, 14))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """One Ray for all tests: it takes seconds to start."""
    pytest.importorskip("ray", reason="RAY IS NOT TESTED: pip install 'tradewind[ray]'")
    source = str(Path(__file__).parents[3] / "src")
    with RayCluster(cpus=2, env={"PYTHONPATH": source}) as found:
        yield found


class Submitter:
    """Somebody's machine: a home with a context for the cluster, and a project."""

    def __init__(self, folder: Path, cluster: RayCluster) -> None:
        self.folder, self._auth = folder, cluster.auth
        self.out, self.store = folder / "out", f"sqlite:///{folder}/home/store.db"
        self.out.mkdir()
        (folder / "project").mkdir()
        (folder / "project" / "script.py").write_text(training.SCRIPT)
        (folder / "home" / "contexts").mkdir(parents=True)
        self.context("ray", cluster, "PACK", 120)
        self.context("apart", cluster, "STRICT_SPREAD", 1)

    def context(self, name: str, cluster: RayCluster, strategy: str, deadline_s: int) -> None:
        """Write a context."""
        text = CONTEXT.format(
            url=cluster.url,
            strategy=strategy,
            deadline_s=deadline_s,
            scratch=self.folder / "node",
            store=self.store,
        )
        (self.folder / "home" / "contexts" / f"{name}.yaml").write_text(text)

    def write_spec(self, script: str = "script.py", args: Sequence[str] = (), **env: str) -> None:
        """A spec whose workers see this environment; on Ray the submitter's own stays behind."""
        names = {"OUT": str(self.out), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | env
        spec = {"script": script, "args": list(args), "workers": 2, "hosts": 2, "env": names}
        (self.folder / "project" / "run.yaml").write_text(yaml.safe_dump(spec))

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """A `tradewind` command."""
        return subprocess.Popen(
            [*training.TRADEWIND, *command],
            cwd=self.folder / "project",
            env=training.environment(self.folder, **self._auth),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *command: str) -> tuple[int, str]:
        """A `tradewind` command, to its end."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=400)
        return process.returncode, output

    def events(self, kind: str) -> list[Event]:
        """What the run's leader recorded so far."""
        with open_store(self.store) as store:
            return store.events(store.runs()[0].id, kind=kind)

    def wait_for(self, kind: str, said: Sequence[str]) -> None:
        """Return once an event of a kind was recorded."""
        training.wait_until(lambda: self.events(kind), lambda: f"no {kind}\n{''.join(said)}")

    def show(self) -> dict[str, Any]:
        """What `show` says of the last run."""
        code, said = self.call("show", "last", "-o", "json")
        assert code == 0, said
        found: dict[str, Any] = json.loads(said)
        return found


@pytest.fixture
def submitter(tmp_path: Path, cluster: RayCluster) -> Submitter:
    return Submitter(tmp_path, cluster)


def host_process(process: "subprocess.Popen[str]", output: list[str]) -> int:
    """Read what the run prints until host 1 has said which process it is."""
    assert process.stdout is not None
    found = None
    while found is None:
        line = process.stdout.readline()
        assert line, "".join(output)
        output.append(line)
        found = HOST.search(line)
    return int(found[1])


def kill_worker(submitter: Submitter, rank: int) -> None:
    """Kill -9 of the one process that a rank has had, by the word of that process itself."""

    def started() -> list[int]:
        return [event.data["pid"] for event in submitter.events("start") if event.rank == rank]

    training.wait_until(started, lambda: f"rank {rank} has not said that it started")
    (process,) = started()
    assert process > 1
    os.kill(process, signal.SIGKILL)


def test_the_recipe_outlives_a_worker_and_a_host(submitter: Submitter, tmp_path: Path) -> None:
    """With rank 1 killed, and then its host, the recipe ends with the weights of a run left alone; each loss is named."""
    alone = TRAINED.start_calm(tmp_path / "calm", ONLY_WEIGHTS="1")
    TRAINED.write(submitter.folder / "project")
    submitter.write_spec("noted.py", [*TRAINED.flags, "--out", str(submitter.out)])
    process, output = submitter.start("run", "run.yaml", "--on", "ray"), []
    host = host_process(process, output)
    TRAINED.at_gate(submitter.out, 4, lambda: "".join(output), limit_s=240)
    kill_worker(submitter, rank=1)
    go_on(submitter.out, 4)
    TRAINED.at_gate(submitter.out, 14, lambda: "".join(output))
    os.kill(host, signal.SIGKILL)
    submitter.wait_for("host_lost", output)
    go_on(submitter.out, 14)
    rest, _ = process.communicate(timeout=400)
    said = "".join(output) + rest
    assert process.returncode == 0, said
    calm = training.finish(tmp_path / "calm", alone)
    assert calm.code == 0, calm.output
    with open_store(submitter.store) as store:
        (run,) = store.runs()
        found = Finished(0, said, run, list(store.events(run.id)), submitter.out)
    TRAINED.check_equal(found, calm)
    assert package(found.out)
    assert "host 1 is lost" in said
    assert len(HOST.findall(said)) == 2, said
    check_named(submitter.show())
    code, listed = submitter.call("ps")
    assert (code, "succeeded" in listed, " ray " in listed) == (0, True, True), listed
    assert "host 1 is lost" in submitter.call("logs", "last")[1]


def check_named(shown: dict[str, Any]) -> None:
    """`show` names the worker and the host that were lost; its ledger accounts for all of the time."""
    assert [(one["rank"], one["class"]) for one in shown["failures"]] == [(1, "killed"), (1, "host_lost")]
    (lost,) = shown["interruptions"]
    assert (lost["what"], lost["host"], lost["attempt"]) == ("host_lost", "host 1", 1)
    ledger = shown["ledger"]
    assert min(ledger[name] for name in ("pending", "restart", "restore", "compute")) > 0
    assert sum(ledger.values()) == pytest.approx(shown["wall_s"])


def test_a_run_that_is_stopped_commits_first(submitter: Submitter) -> None:
    """`tradewind stop` reaches the workers: they commit, and the run is known as stopped."""
    submitter.write_spec(PLAN="SLOW=0.2", EPOCHS="500")
    code, said = submitter.call("run", "run.yaml", "--on", "ray", "--detach")
    assert code == 0, said
    out = submitter.out
    training.wait_until(
        lambda: len(list(out.glob("samples.*"))) == 2, lambda: submitter.call("logs", "last")[1], limit_s=240
    )
    code, said = submitter.call("stop", "last")
    assert (code, "stopped" in said) == (0, True), said
    assert list(submitter.folder.glob("node/shared/*/checkpoints/step-*")), submitter.call("logs", "last")[1]


def test_hosts_that_must_lie_apart_start_together_or_not_at_all(submitter: Submitter) -> None:
    """On one node two hosts that must not share one are never started; the run asks to be queued again."""
    submitter.write_spec()
    code, said = submitter.call("run", "run.yaml", "--on", "ray:apart")
    assert (code, "no room for all hosts" in said) == (75, True), said
    assert not list(submitter.out.iterdir())
