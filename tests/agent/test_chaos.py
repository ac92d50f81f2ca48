"""Schedules, and their injection into real runs of a script that only journals its steps."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tradewind.agent.chaos import Injection, Injector, Kind, Schedule, read_kind
from tradewind.errors import SpecError, TradewindError
from tradewind.launch.local import start_detached, submit
from tradewind.spec import RunSpec
from tradewind.store import Event, Run, Store, open_store

SCRIPT = """
import json, os, signal, sys, time
rank = os.environ["RANK"]
def leave(number, frame):
    time.sleep(0.1)
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
state = f"{os.environ['TRADEWIND_RUN_DIR']}/state{rank}"
step = int(open(state).read()) if os.path.exists(state) else 0
fd = os.open(os.environ["TRADEWIND_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
while step < 60:
    time.sleep(0.02)
    step += 1
    with open(state + ".new", "w") as file:
        file.write(str(step))
    os.replace(state + ".new", state)
    os.write(fd, json.dumps({"t": time.time(), "kind": "step", "step": step}).encode() + b"\\n")
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store in an empty home."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRADEWIND_STORE", raising=False)
    with open_store() as opened:
        yield opened


Start = Callable[[int], Run]


@pytest.fixture
def start(tmp_path: Path, store: Store) -> Iterator[Start]:
    """A function that starts a run of so many workers under an agent of its own."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "main.py").write_text(SCRIPT)
    agents = []

    def begin(workers: int) -> Run:
        run = submit(RunSpec(script="main.py", workers=workers, max_restarts=9), store, cwd=project)
        agents.append(start_detached(run, store))
        return store.run(run.id)

    yield begin
    for agent in agents:
        os.kill(agent, signal.SIGKILL)  # It is ours to reap, so the number is still its own.
        os.waitpid(agent, 0)


def ended(store: Store, run: Run) -> Run:
    """The run once its agent has ended."""
    assert run.pid is not None or store.run(run.id).pid is not None
    os.waitid(os.P_PID, store.run(run.id).pid or 0, os.WEXITED | os.WNOWAIT)
    return store.run(run.id)


def injected(store: Store, run: Run, kind: str = "injected") -> list[Event]:
    return store.events(run.id, kind=kind)


def exits(store: Store, run: Run) -> list[tuple[int | None, Any]]:
    return [
        (e.rank, e.data["signal"]) for e in store.events(run.id, kind="worker_exit") if not e.data["told"]
    ]


def test_kills_hit_the_worker_named_at_the_step_named(store: Store, start: Start) -> None:
    """Each kill ends the rank it names once that rank committed the step; all are counted and recorded."""
    run = start(2)
    injector = Injector(run.id, store)
    injector.run([Injection(kind=Kind.KILL, rank=1, step=5), Injection(kind=Kind.KILL, rank=0, step=12)])
    assert ended(store, run).state == "succeeded"
    assert injector.counts == {"kill": 2}
    assert injector.missed == []
    events = injected(store, run)
    assert [(e.rank, e.data["what"], e.data["step"]) for e in events] == [(1, "kill", 5), (0, "kill", 12)]
    assert all(5 <= e.data["at_step"] < 60 for e in events)
    assert {(1, 9), (0, 9)} <= set(exits(store, run))
    started = {e.data["pid"] for e in store.events(run.id, kind="worker_started")}
    assert {e.data["pid"] for e in events} < started
    assert len(store.attempts(run.id)) == 3


def test_a_stop_lasts_as_long_as_it_says(store: Store, start: Start) -> None:
    """A stopped worker commits nothing until it is continued, and then the run ends well."""
    run = start(1)
    injector = Injector(run.id, store)
    injector.run([Injection(kind=Kind.DELAY, step=5, seconds=0.5)])
    [begun], [over] = injected(store, run), injected(store, run, "injection_ended")
    assert 0.5 <= over.t_s - begun.t_s < 10.0
    assert ended(store, run).state == "succeeded"
    times = [
        float(line.split('"t": ')[1].split(",")[0])
        for line in (Path(run.dir) / "journal" / "attempt0" / "rank0.jsonl").read_text().splitlines()
    ]
    assert max(b - a for a, b in itertools.pairwise(times)) >= 0.45


def test_a_resize_changes_the_group_or_sends_the_run_away(store: Store, start: Start) -> None:
    """The run goes on with the workers asked for, or leaves in good order to be started again with them."""
    run = start(2)
    injector = Injector(run.id, store)
    injector.run([Injection(kind=Kind.RESIZE, step=5, workers=3)])
    state = ended(store, run).state
    assert injected(store, run)[0].data["workers"] == 3
    groups = [e.data["workers"] for e in store.events(run.id, kind="attempt_started")]
    assert (state, groups) in [("requeued", [2]), ("succeeded", [2, 3])]
    assert [signum for _, signum in exits(store, run) if signum] == []


def test_what_the_run_is_too_short_for_is_missed(store: Store, start: Start) -> None:
    """Injections after the end, or on a rank that is not there, are reported as missed and not counted."""
    run = start(2)
    wanted = [
        Injection(kind=Kind.KILL, step=8),
        Injection(kind=Kind.KILL, rank=5, step=9),
        Injection(kind=Kind.KILL, step=10),
    ]
    injector = Injector(run.id, store)
    injector.run(wanted)
    assert ended(store, run).state == "succeeded"
    assert injector.counts == {"kill": 1}
    assert injector.missed == wanted[1:]
    assert len(injected(store, run)) == 1


def test_timed_injections_need_no_steps(store: Store, start: Start) -> None:
    """An injection with a time instead of a step happens once that time has passed."""
    run = start(2)
    injector = Injector(run.id, store)
    injector.run([Injection(kind=Kind.KILL, after_s=0.2)])
    assert ended(store, run).state == "succeeded"
    assert injector.counts == {"kill": 1}


def test_a_bit_of_the_newest_checkpoint_is_flipped(store: Store, start: Start) -> None:
    """A corruption changes the newest checkpoint and no other; the event says which bit of which file."""
    run = start(1)
    old, new = (Path(run.dir) / "checkpoints" / f"step-{step:012}" / "shared.safetensors" for step in (1, 2))
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(bytes(100))
    Injector(run.id, store, seed=4).run([Injection(kind=Kind.CORRUPT, step=3)])
    assert old.read_bytes() == bytes(100)
    [event] = injected(store, run)
    bit = int(event.data["detail"].split()[1])
    assert event.data["detail"] == f"bit {bit} of {new}"
    assert int.from_bytes(new.read_bytes(), "little") == 1 << bit


def test_an_agent_that_died_ends_the_injection(store: Store, start: Start) -> None:
    """When the agent itself is killed, nobody will say that the run is over: the injector notices."""
    run = start(2)
    injector = Injector(run.id, store)
    injector.run([Injection(kind=Kind.KILL, rank=1, step=3)])
    while store.run(run.id).pid is None:
        pass
    os.kill(store.run(run.id).pid or 0, signal.SIGKILL)
    late = Injection(kind=Kind.KILL, rank=1, step=50)
    injector.run([late])
    assert injector.missed == [late]
    assert store.run(run.id).state == "running"


def test_a_number_given_to_another_process_is_spared(store: Store) -> None:
    """A process that began after the worker of that number did is not the worker, and is not hit."""
    run = store.add_run(
        Run(id="run1", name="run1", created_s=0.0, state="running", pid=os.getpid(), dir="/tmp")
    )
    store.add_events(
        [Event(run=run.id, attempt=0, rank=0, t_s=1.0, kind="worker_started", data={"pid": os.getpid()})]
    )
    assert Injector(run.id, store)._worker(0) is None


def test_a_fault_that_cannot_be_done_is_an_error(store: Store, start: Start) -> None:
    """Where a fault would hit more than the run, nothing is injected and the reason is said."""
    run = start(1)
    injector = Injector(run.id, store)
    with pytest.raises(TradewindError, match=r"ip netns exec|needs root"):
        injector.run([Injection(kind=Kind.PARTITION, step=3, seconds=1.0)])
    assert injector.counts == {}
    assert ended(store, run).state == "succeeded"


@pytest.mark.parametrize("seed", range(50))
def test_seeded_schedules_are_repeatable_and_possible(seed: int) -> None:
    """A seed gives one schedule: growing steps inside the run, and ranks that exist when they are hit."""
    kinds = [Kind.KILL, Kind.STOP, Kind.TERM, Kind.RESIZE, Kind.DELAY]
    schedule = Schedule.seeded(seed, 3, 24, kinds, worlds=(2, 3, 4))
    assert schedule == Schedule.seeded(seed, 3, 24, kinds, worlds=(2, 3, 4))
    assert 1 <= len(schedule) <= 3
    steps = [injection.step or 0 for injection in schedule]
    assert steps == sorted(set(steps))
    assert 1 <= steps[0] <= steps[-1] < 24
    workers = 3
    for injection in schedule:
        assert 0 <= injection.rank < workers
        if injection.kind is Kind.RESIZE:
            assert injection.workers in {2, 3, 4} - {workers}
            workers = injection.workers


def test_seeds_differ_and_cover_every_kind() -> None:
    """Different seeds give different schedules, and together they use every kind and rank."""
    kinds = [Kind.KILL, Kind.STOP, Kind.TERM]
    schedules = [Schedule.seeded(seed, 2, 24, kinds) for seed in range(40)]
    assert len({str(schedule) for schedule in schedules}) > 35
    assert {i.kind for schedule in schedules for i in schedule} == set(kinds)
    assert {i.rank for schedule in schedules for i in schedule} == {0, 1}


def test_a_schedule_by_the_clock() -> None:
    """One injection a period for as long as asked, on ranks drawn from the seed or on the one named."""
    found = Schedule.every(30.0, 300.0, 4, Kind.KILL, seed=1)
    assert [injection.after_s for injection in found] == [30.0 * i for i in range(1, 11)]
    assert len({injection.rank for injection in found}) > 1
    assert {i.rank for i in Schedule.every(30.0, 300.0, 4, Kind.KILL, rank=2)} == {2}


def test_impossible_injections_are_refused() -> None:
    """A delay without an end, a resize to nothing and an unknown signal are errors at once."""
    with pytest.raises(SpecError, match="seconds"):
        Injection(kind=Kind.DELAY)
    with pytest.raises(SpecError, match="workers"):
        Injection(kind=Kind.RESIZE)
    with pytest.raises(SpecError, match="KILL, TERM, STOP"):
        read_kind("SEGV")
    assert read_kind("SIGKILL") is read_kind("kill") is Kind.KILL
