"""Run the script under Tradewind while a schedule of faults is carried out, and say what harm was done."""

import hashlib
import os
import random
import select
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec

from tests.chaos import harm
from tests.chaos.training import SCRIPT, STEPS
from tradewind.agent.chaos import Done, Injection, Injector, Kind, Schedule
from tradewind.launch.local import start_detached, submit
from tradewind.spec import RunSpec
from tradewind.store import Run, Store, open_store

KINDS = (Kind.KILL, Kind.KILL, Kind.STOP, Kind.TERM, Kind.RESIZE)
WORLDS = (2, 3, 4)
STOPPED_S = 1.5
PATIENCE_S = 240.0
"""A run that takes longer than this on a busy machine is stuck."""
_LEGS = 8


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule did to a run."""

    seed: int
    worlds: list[int]
    """The number of workers of each leg: a leg ends when the run leaves to be started again."""
    injected: dict[str, int]
    missed: int
    """Injections for which the run ended too early."""
    state: str
    weights: str = ""
    """Digest of the final file, weights and tally."""
    resized: bool = False
    lost: int = 0
    repeated: int = 0
    recomputed: list[int] = []
    wall_s: float = 0.0


def plan(seed: int) -> tuple[int, list[Injection]]:
    """The number of workers that a seed begins with, and what happens to them."""
    world = random.Random(f"world of {seed}").choice(WORLDS)
    schedule = Schedule.seeded(seed, world, STEPS, KINDS, seconds=STOPPED_S, worlds=WORLDS)
    return world, schedule


def disturb(seed: int, folder: Path) -> Outcome:
    """Carry out a seed's schedule in an empty folder."""
    world, schedule = plan(seed)
    return drive(seed, world, schedule, folder)


def undisturbed(world: int, folder: Path) -> str:
    """The digest that a run of so many workers ends with when it is left alone."""
    outcome = drive(-1, world, [], folder)
    assert outcome.state == "succeeded", (
        f"an undisturbed run of {world} workers {outcome.state}: see {folder}"
    )
    assert (outcome.lost, outcome.repeated, outcome.recomputed) == (0, 0, [])
    return outcome.weights


def drive(seed: int, world: int, schedule: list[Injection], folder: Path) -> Outcome:
    """Start the run, and again each time it leaves to be started again, until it ends otherwise.

    Takes `TRADEWIND_HOME` from the environment. A run that is stuck ends as `stuck`.
    """
    for path in (folder / "project", folder / "out"):
        path.mkdir()
    (folder / "project" / "script.py").write_text(SCRIPT)
    started, worlds, state, pending = time.monotonic(), list[int](), "requeued", schedule
    done, run_dirs = list[Done](), list[Path]()
    with open_store() as store:
        while state == "requeued" and len(worlds) < _LEGS:
            worlds.append(world)
            run = submit(spec_of(seed, world, folder), store, cwd=folder / "project")
            state, injector = leg(run, store, pending)
            run_dirs.append(Path(run.dir))
            done, pending = done + injector.done, injector.missed
            world = next((i.workers for i in resizes(injector.done)), world)
    outcome = Outcome(
        seed=seed,
        worlds=worlds,
        injected=dict(Counter(str(d.injection.kind) for d in done)),
        missed=len(pending),
        state=state,
        resized=bool(resizes(done)),
        wall_s=round(time.monotonic() - started, 2),
    )
    return judged(outcome, folder / "out", run_dirs) if state == "succeeded" else outcome


def spec_of(seed: int, world: int, folder: Path) -> RunSpec:
    """One leg: it goes on from the checkpoints of the one before."""
    return RunSpec(
        script="script.py",
        args=(str(folder / "out"),),
        workers=world,
        max_restarts=9,
        checkpoint_dir=str(folder / "checkpoints"),
        name=f"chaos-{seed}",
    )


def resizes(done: list[Done]) -> list[Injection]:
    """The resizes among what was done, the last one first."""
    return [d.injection for d in reversed(done) if d.injection.kind is Kind.RESIZE]


def leg(run: Run, store: Store, pending: list[Injection]) -> tuple[str, Injector]:
    """One run, from its start until its agent has ended, with what can be injected injected."""
    agent = start_detached(run, store)
    injector = Injector(run.id, store)
    try:
        injector.run(pending, timeout_s=PATIENCE_S)
        stuck = not ends(agent, PATIENCE_S)
    finally:
        os.kill(agent, signal.SIGKILL)  # Ours to reap, so the number is its own; its workers die with it.
        os.waitpid(agent, 0)
    return ("stuck" if stuck else store.run(run.id).state), injector


def ends(pid: int, timeout_s: float) -> bool:
    """Whether a process ends in time."""
    pidfd = os.pidfd_open(pid)
    try:
        return bool(select.select([pidfd], [], [], timeout_s)[0])
    finally:
        os.close(pidfd)


def judged(outcome: Outcome, out: Path, run_dirs: list[Path]) -> Outcome:
    """The outcome with the harm that was done, by the records and by the state's own count: the worse."""
    final, records = out / "final.safetensors", harm.read_records(out)
    found = [harm.lost_and_repeated(counts) for counts in (harm.delivered(records), harm.committed(final))]
    return msgspec.structs.replace(
        outcome,
        weights=hashlib.sha256(final.read_bytes()).hexdigest(),
        lost=max(lost for lost, _ in found),
        repeated=max(repeated for _, repeated in found),
        recomputed=harm.recomputed(harm.journalled(run_dirs).values()),
    )
