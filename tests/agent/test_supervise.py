"""Losing workers: what is kept, what is done again, and what the run says about it; with real processes."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent import training
from tests.agent.training import Finished
from tradewind.agent import job_of, supervise
from tradewind.launch.local import submit
from tradewind.spec import RunSpec
from tradewind.store import open_store

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 8


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Finished]:
    """An undisturbed run of so many workers."""
    known: dict[int, Finished] = {}

    def run(workers: int) -> Finished:
        if workers not in known:
            known[workers] = training.run(tmp_path_factory.mktemp(f"calm{workers}"), workers)
            assert known[workers].code == 0, known[workers].output
        return known[workers]

    return run


def check_exactly_once(found: Finished, epochs: int = 4) -> None:
    """Every epoch's committed steps hold every sample exactly once."""
    committed = found.committed()
    assert list(committed) == list(range(1, epochs * STEPS_PER_EPOCH + 1))
    for epoch in range(epochs):
        steps = range(epoch * STEPS_PER_EPOCH + 1, (epoch + 1) * STEPS_PER_EPOCH + 1)
        assert sorted(sample for step in steps for sample in committed[step]) == list(range(96))


def check_kept(found: Finished, rank: int, attempts: int) -> None:
    """This rank kept its process from attempt to attempt, except where the agent says that it had to end it.

    Gloo may never finish a send whose connection was closed at that moment; who is stuck in one is killed.
    """
    killed = {
        e.attempt for e in found.of("worker_exit") if e.rank == rank and e.data["told"] == signal.SIGKILL
    }
    for attempt in range(attempts - 1):
        same = found.pids(attempt)[rank] == found.pids(attempt + 1)[rank]
        assert same is (attempt not in killed), (attempt, killed)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_replaced_and_the_other_keeps_its_process(
    rank: int, tmp_path: Path, calm: Callable[[int], Finished]
) -> None:
    """After kill -9 only that rank gets a new process, at most one step is done again, and the weights agree."""
    found = training.run(tmp_path, 2, PLAN=f"KILL=13/{rank}")
    assert found.code == 0, found.output
    assert found.pids(0)[rank] != found.pids(1)[rank]
    check_kept(found, 1 - rank, attempts=2)
    resumes = found.of("resume")
    assert {event.data["tier"] for event in resumes} == {"memory"}
    assert {event.data["step"] for event in resumes} <= {11, 12}
    assert found.weights == calm(2).weights
    check_exactly_once(found)
    assert len(found.of("recovered")) == 1


def test_a_thread_of_the_script_that_was_left_holds_up_no_end(tmp_path: Path) -> None:
    """A thread that waits for what a left script was about to say is not waited for; those of the last one are."""
    first = 'os.environ["TRADEWIND_ATTEMPT"] == "0"'
    thread = f"threading.Thread(target=threading.Event().wait if {first} else wrote).start()"
    wrote = 'def wrote():\n    time.sleep(0.2)\n    open(f"{OUT}/wrote{os.environ[\'RANK\']}", "w").close()\n'
    script = "import threading\n" + training.SCRIPT.replace("with train.dist", wrote + "\nwith train.dist")
    script = script.replace("    for indices in loop:", f"    {thread}\n    for indices in loop:")
    found = training.run(tmp_path, 2, script=script, PLAN="KILL=13/1")
    assert found.code == 0, found.output
    check_kept(found, 0, attempts=2)
    assert {path.name for path in (tmp_path / "out").glob("wrote*")} == {"wrote0", "wrote1"}


def test_a_stopped_worker_is_named_and_replaced(tmp_path: Path, calm: Callable[[int], Finished]) -> None:
    """SIGSTOP of one rank is found to be a hang of that rank, with the other's stacks, and is recovered from."""
    found = training.run(tmp_path, 2, PLAN="STOP=20/1")
    assert found.code == 0, found.output
    (hang,) = found.of("hang")
    assert hang.data["ranks"] == [1]
    assert hang.data["evidence"] == "stopped"
    assert "Thread" in Path(hang.data["stacks"]["0"]).read_text()
    (failure,) = found.of("failure")
    assert (failure.rank, failure.data["class"]) == (1, "hang")
    assert found.weights == calm(2).weights
    check_exactly_once(found)


def test_a_run_grows_and_shrinks_in_place(tmp_path: Path) -> None:
    """From 2 workers to 3 and to 1: no sample is lost or repeated, and rank 0 keeps its process."""
    process = training.start(tmp_path, 2, PLAN="SLOW=0.05,WAIT=48", EPOCHS="6")
    for attempts, workers in ((2, 3), (3, 1)):
        wait_for_steps(tmp_path, more_than=count_lines(tmp_path) + 6)
        training.resize(tmp_path, workers)
        training.wait_for_attempts(tmp_path, attempts)
    training.go_on(tmp_path)
    found = training.finish(tmp_path, process)
    assert found.code == 0, found.output
    assert [event.data["workers"] for event in found.of("attempt_started")] == [2, 3, 1]
    check_kept(found, 0, attempts=3)
    assert not found.of("failure")
    check_exactly_once(found, epochs=6)


def count_lines(folder: Path) -> int:
    """Lines of samples written so far, by all ranks."""
    return sum(len(path.read_text().splitlines()) for path in (folder / "out").glob("samples.*"))


def wait_for_steps(folder: Path, more_than: int) -> None:
    """Return once the workers have written more lines than this."""
    training.wait_until(lambda: count_lines(folder) > more_than, lambda: "the run makes no progress")


def test_a_bug_that_comes_back_ends_the_run(tmp_path: Path) -> None:
    """The same exception in the same step after a resume stops the run with "do not retry", naming it."""
    found = training.run(tmp_path, 2, PLAN="BUG=5/1")
    assert found.code == 65, found.output
    assert [event.data["action"] for event in found.of("verdict")] == ["restart_in_place", "stop"]
    assert "ValueError: this step always fails" in found.of("verdict")[-1].data["reason"]
    assert found.of("failure")[0].rank == 1


PLAIN = """
import os, signal
import torch, torch.distributed as dist
dist.init_process_group("gloo")
if dist.get_rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    os.kill(os.getpid(), signal.SIGKILL)
dist.all_reduce(torch.ones(1))
"""


def test_a_script_without_a_loop_starts_afresh(tmp_path: Path) -> None:
    """A plain torchrun script is not entered twice by one process: both ranks get new ones."""
    found = training.run(tmp_path, 2, PLAIN)
    assert found.code == 0, found.output
    assert not set(found.pids(0).values()) & set(found.pids(1).values())


def test_nothing_is_left_in_shared_memory(calm: Callable[[int], Finished]) -> None:
    """The memory tier of a run is gone when the run has ended."""
    assert not list(Path("/dev/shm").glob(f"tradewind-*/{calm(2).run.id}"))


FAILS_AT_ONCE = """
import json, os, time
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
if not first:
    time.sleep(0.3)  # Touch no file for longer than the agent gathers writes.
with open(os.environ["TRADEWIND_JOURNAL"], "a") as journal:
    journal.write(json.dumps({"t": time.time(), "kind": "step", "step": 1}) + "\\n")
os._exit(int(first))
"""


def test_an_attempt_may_end_while_its_last_writes_are_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that writes and dies at once is replaced: what was not read yet does not reach into the next attempt."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    (tmp_path / "script.py").write_text(FAILS_AT_ONCE)
    with open_store() as store:
        run = submit(RunSpec(script="script.py"), store, cwd=tmp_path)
        outcome = supervise(job_of(run), store)
        assert (outcome.state, outcome.attempts) == ("succeeded", 2)
        assert [event.data["step"] for event in store.events(run.id, kind="recovered")] == [1]
