"""Several hosts: one group of workers over all of them, and what the loss of one costs; in network namespaces."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent import training
from tests.agent.fleets import Fleet
from tests.agent.test_supervise import check_exactly_once
from tests.agent.training import Finished
from tests.services.namespaces import Network, network
from tradewind.names import ExitCode

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    """Two hosts."""
    with network(2) as built:
        yield built


Start = Callable[..., Fleet]


@pytest.fixture
def fleet(tmp_path: Path, hosts: Network) -> Iterator[Start]:
    """A function that starts a run on both hosts."""
    started: list[Fleet] = []

    def start(**options: object) -> Fleet:
        started.append(Fleet(tmp_path / "fleet", hosts, **options))  # type: ignore[arg-type]
        started[-1].start_all()
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed run of two workers on one host."""
    found = training.run(tmp_path_factory.mktemp("calm"), 2)
    assert found.code == 0, found.output
    return found


def test_two_hosts_train_as_one_does(fleet: Start, calm: Finished) -> None:
    """A worker on each of two hosts ends with bitwise the weights of two workers on one."""
    found = fleet().finish()
    assert found.code == 0, found.output
    assert found.weights == calm.weights
    check_exactly_once(found)
    started = [(event.rank, event.data["host"]) for event in found.of("worker_started")]
    assert started == [(0, "host 0"), (1, "host 1")], found.output
    assert {event.rank for event in found.of("step")} == {0, 1}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_killed_on_either_host_is_replaced_there(fleet: Start, calm: Finished, rank: int) -> None:
    """The other host's worker keeps its process, and both go on from the memory of their hosts."""
    found = fleet(PLAN=f"KILL=13/{rank}").finish()
    assert found.code == 0, found.output
    assert found.weights == calm.weights
    check_exactly_once(found)
    assert [event.data["action"] for event in found.of("verdict")] == ["restart_in_place"]
    (failure,) = found.of("failure")
    assert (failure.rank, failure.data["class"]) == (rank, "killed")
    kept = {e.rank: e.data["kept"] for e in found.of("worker_started") if e.attempt == 1}
    assert kept[rank] is False


def test_a_lost_host_is_waited_for(fleet: Start, calm: Finished) -> None:
    """A host that dies is named, the other stays, and the run goes on when one comes in its place."""
    running = fleet(PLAN="WAIT=20", EVERY="4")
    running.wait_for("checkpoint")
    running.replace(1)
    found = running.finish()
    assert found.code == 0, found.output
    assert found.weights == calm.weights
    check_exactly_once(found)
    assert len(found.of("verdict")) == 1, found.output
    (verdict,) = found.of("verdict")
    assert (verdict.data["action"], verdict.data["host"], verdict.data["cause"]) == (
        "replace_host",
        "host 1",
        "host_lost",
    )


def test_a_lost_hosts_state_comes_from_the_next_hosts_memory(fleet: Start, calm: Finished) -> None:
    """With nothing on disk a new host gets from the other host what it holds of the lost one, and all go on there."""
    running = fleet(PLAN="WAIT=20")
    copied = running.wait_for_copy()
    running.replace(1)
    found = running.finish()
    assert found.code == 0, found.output
    assert found.weights == calm.weights
    check_exactly_once(found)
    assert {(event.rank, event.data["tier"]) for event in found.of("resume")} == {(0, "memory"), (1, "peer")}
    assert {event.data["step"] >= copied for event in found.of("resume")} == {True}


def test_with_fewer_hosts_a_run_goes_on_from_memory(tmp_path: Path) -> None:
    """Of three hosts the middle one is lost, with nothing on disk: the third takes its rank, and has what it had."""
    with network(3) as built:
        running = Fleet(tmp_path / "fleet", built, min_hosts=2, PLAN="WAIT=20")
        try:
            running.start_all()
            copied = running.wait_for_copy(holder=2)
            running.kill(1)
            running.forget(1)
            del running.agents[1]
            running.wait_for("attempt_started", 2)
            training.go_on(running.folder)
            found = running.finish()
        finally:
            running.close()
    assert found.code == 0, found.output
    assert [event.data["workers"] for event in found.of("attempt_started")] == [3, 2]
    assert {(event.rank, event.data["tier"]) for event in found.of("resume")} == {
        (0, "memory"),
        (1, "memory"),
    }
    assert all(event.data["step"] >= copied for event in found.of("resume"))
    check_exactly_once(found)


def test_the_first_host_may_be_lost_too(fleet: Start, calm: Finished) -> None:
    """When the leader dies the other host keeps its worker, and follows the leader that comes in its place."""
    running = fleet(PLAN="WAIT=20", EVERY="4")
    running.wait_for("checkpoint")
    running.kill(0)
    running.forget(0)
    training.go_on(running.folder)
    running.start(0)
    found = running.finish()
    assert found.code == 0, found.output
    assert found.weights == calm.weights
    check_exactly_once(found)


def test_a_host_that_is_cut_off_is_left_behind_and_taken_back(fleet: Start, hosts: Network) -> None:
    """With fewer hosts allowed the run goes on without a host that is silent, and grows when it is heard again."""
    running = fleet(PLAN="WAIT=20", EVERY="4", min_hosts=1)
    running.wait_for("checkpoint")
    try:
        hosts.pull(1)
        running.wait_for("host_lost")
        running.wait_for("attempt_started", 2)
    finally:
        hosts.plug(1)
    running.wait_for("host_came", 2)
    running.wait_for("attempt_started", 3)
    training.go_on(running.folder)
    found = running.finish()
    assert found.code == 0, found.output
    assert [event.data["workers"] for event in found.of("attempt_started")] == [2, 1, 2]
    assert "silent" in found.of("host_lost")[0].data["why"]
    check_exactly_once(found)


def test_a_gang_that_is_told_to_end_commits_first(fleet: Start, calm: Finished) -> None:
    """Every host gets SIGTERM, as when all of them are preempted: that is one wish, and none of them is in a hurry."""
    running = fleet(PLAN="WAIT=20", EVERY="1000")
    running.wait_for("step", 2)
    done = max(event.data["step"] for event in running.events("step"))
    for agent in running.agents.values():
        agent.send_signal(signal.SIGTERM)
    running.wait_for("asked")
    training.go_on(running.folder)
    assert {agent.wait(60) for agent in running.agents.values()} == {ExitCode.REQUEUE}, running.said()
    running.start_all()
    found = running.finish()
    assert found.code == 0, found.output
    assert found.of("resume"), found.output
    (step,) = {event.data["step"] for event in found.of("resume")}
    assert step >= done
    assert found.weights == calm.weights
    check_exactly_once(found)


GIVES_UP = """
import os
print("no luck with", os.environ["RANK"], flush=True)
os._exit(7)
"""


def test_a_host_whose_restarts_are_used_up_says_that_no_other_try_is_wanted(tmp_path: Path) -> None:
    """It ends with 65, not with 1, which whoever started it would take for a reason to try again; its log is there."""
    spec = {"script": "script.py", "workers": 1, "hosts": 1, "max_restarts": 0}
    (tmp_path / "run.json").write_text(json.dumps({"id": "gives-up", "name": "fleet", "spec": spec}))
    (tmp_path / "host" / "code").mkdir(parents=True)
    (tmp_path / "host" / "code" / "script.py").write_text(GIVES_UP)
    command = [
        sys.executable,
        "-P",
        "-m",
        "tradewind.agent.fleet",
        str(tmp_path / "run.json"),
        str(tmp_path / "host"),
    ]
    done = subprocess.run(
        command, env=training.environment(tmp_path), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == ExitCode.DO_NOT_RETRY, done.stderr
    assert "[rank0] no luck with 0\n" in done.stdout
