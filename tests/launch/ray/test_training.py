"""Training through a real Ray on this machine: two workers, one of them killed with its host."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent import training
from tests.services.ray_cluster import RayCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HOST = re.compile(r"host 1 is process (\d+)")
CONTEXT = """
address: {url}
strategy: {strategy}
start_deadline_s: {deadline_s}
scratch: {scratch}
run_root: {scratch}/shared
"""


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
        (folder / "project").mkdir()
        (folder / "project" / "script.py").write_text(training.SCRIPT)
        (folder / "home" / "contexts").mkdir(parents=True)
        self.context("ray", cluster, "PACK", 120)
        self.context("apart", cluster, "STRICT_SPREAD", 1)

    def context(self, name: str, cluster: RayCluster, strategy: str, deadline_s: int) -> None:
        """Write a context."""
        text = CONTEXT.format(
            url=cluster.url, strategy=strategy, deadline_s=deadline_s, scratch=self.folder / "node"
        )
        (self.folder / "home" / "contexts" / f"{name}.yaml").write_text(text)

    def write_spec(self, **env: str) -> None:
        """A spec whose workers see this environment; on Ray the submitter's own stays behind."""
        (self.folder / "out").mkdir(exist_ok=True)
        names = {"OUT": str(self.folder / "out"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | env
        lines = "".join(f"  {name}: '{value}'\n" for name, value in names.items())
        text = f"script: script.py\nworkers: 2\nhosts: 2\nenv:\n{lines}"
        (self.folder / "project" / "run.yaml").write_text(text)

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


@pytest.fixture
def submitter(tmp_path: Path, cluster: RayCluster) -> Submitter:
    return Submitter(tmp_path, cluster)


def kill_host(output: list[str], process: "subprocess.Popen[str]", folder: Path) -> None:
    """Read what the run prints until host 1 has said which process it is and both workers wait; then kill it."""
    assert process.stdout is not None
    found = None
    while found is None:
        line = process.stdout.readline()
        assert line, "".join(output)
        output.append(line)
        found = HOST.search(line)
    training.wait_until(
        lambda: len(list((folder / "out").glob("samples.*"))) == 2, lambda: "".join(output), limit_s=240
    )
    os.kill(int(found[1]), signal.SIGKILL)


def test_a_host_that_is_killed_is_replaced_and_the_weights_are_right(
    submitter: Submitter, tmp_path: Path
) -> None:
    """With one of two hosts killed on the way, the run ends with the very weights of one that was left alone."""
    alone = training.run(tmp_path / "alone", 2, EVERY="2")
    submitter.write_spec(EVERY="2", PLAN="WAIT=9")
    process, output = submitter.start("run", "run.yaml", "--on", "ray"), []
    kill_host(output, process, submitter.folder)
    training.go_on(submitter.folder)
    rest, _ = process.communicate(timeout=400)
    said = "".join(output) + rest
    assert process.returncode == 0, said
    assert "host 1 is lost" in said
    assert len(HOST.findall(said)) == 2, said
    assert (tmp_path / "out" / "final.safetensors").read_bytes() == alone.weights
    code, listed = submitter.call("ps")
    assert (code, "succeeded" in listed, " ray " in listed) == (0, True, True), listed
    assert "host 1 is lost" in submitter.call("logs", "last")[1]


def test_a_run_that_is_stopped_commits_first(submitter: Submitter) -> None:
    """`tradewind stop` reaches the workers: they commit, and the run is known as stopped."""
    submitter.write_spec(PLAN="SLOW=0.2", EPOCHS="500")
    code, said = submitter.call("run", "run.yaml", "--on", "ray", "--detach")
    assert code == 0, said
    out = submitter.folder / "out"
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
    assert not list((submitter.folder / "out").iterdir())
