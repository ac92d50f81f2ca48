"""How soon a stopped worker is noticed, whether the right one is named, and whether slow steps raise an alarm.

The training is that of `bench/recovery.py`, steps of about 50 ms, under `tradewind run` as it comes. A session stops
(SIGSTOP) rank 0 and rank 1 in turn in the middle of a step; the agent must report a `hang` that names that rank and
nobody else, replace it and go on. `detect_seconds` is from the signal to the event's instant, by the same clock.

`false_alarms` counts alarms where nobody hangs: in 10,000 steps at each of three step times told to the detector on
a clock of its own, one step in 200 ten times slower, and in a real run of steps of 5 ms (1,000; in the smoke form
200), every 50th ten times slower, on either rank, burning CPU and not.
"""

import itertools
import random
import signal
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.harness import Figure, Options, main, say
from bench.peers.training import contenders
from bench.peers.training.driver import Recovery, Training
from bench.peers.training.stamps import Stamp
from bench.peers.training.task_environment import calibrated
from tradewind.diagnose import hang
from tradewind.store import Event, open_store

NAME = "hang"
LEARN_STEPS = 30


def measure(options: Options) -> Mapping[str, Figure]:
    """Stop workers in the middle of a step, and then give nobody cause for an alarm."""
    with tempfile.TemporaryDirectory(prefix="hang-") as name:
        folder, work = Path(name), calibrated()
        found = [stop_each(folder / f"stops{number}", work, number) for number in range(options.repeats)]
        real = quiet_run(folder / "quiet", 200 if options.quick else 1000)
    seen = [verdict for session in found for verdict in session]
    simulated = [alarms_of(step_s, 10_000) for step_s in (0.005, 0.05, 0.5)]
    return {
        "detect_seconds": Figure.of([seconds for seconds, _, _ in seen], "s"),
        "detect_to_bound": Figure.of([seconds / bound_s for seconds, bound_s, _ in seen], "ratio"),
        "guilty_right": share([right for _, _, right in seen]),
        "false_alarms": counted([*simulated, real]),
    }


def stop_each(folder: Path, work: int, seed: int) -> list[tuple[float, float, bool]]:
    """Stop each rank once: seconds until it was noticed, the bound they are held to, and whether it was named."""
    drawn, stops = random.Random(seed), []
    with Training(folder, contenders.ours(), work) as training:
        for rank in (seed % 2, 1 - seed % 2):
            training.settle(LEARN_STEPS)
            stops.append(training.kill(rank, drawn.uniform(0.005, 0.035), signal.SIGSTOP))
    hangs = [event for event in events_of(folder) if event.kind == "hang"]
    return [verdict_of(stop, hangs, training.watching.seen) for stop in stops]


def verdict_of(stop: Recovery, hangs: Sequence[Event], stamps: Sequence[Stamp]) -> tuple[float, float, bool]:
    """What was made of one stop; raises when nothing was."""
    after = [event for event in hangs if event.t_s > stop.killed_s]
    if not after:
        raise RuntimeError(
            f"rank {stop.rank} was stopped and no `hang` event followed: is the watch wired in?"
        )
    seconds, ranks = after[0].t_s - stop.killed_s, list(after[0].data["ranks"])
    bound_s = max(1.0, 3 * quantile(steps_before(stamps, stop.killed_s), 0.99))
    say(
        f"rank {stop.rank} stopped: {ranks} named after {seconds:.2f} s (bound {bound_s:.2f} s), "
        f"back after {stop.seconds:.2f} s"
    )
    return seconds, bound_s, ranks == [stop.rank]


def steps_before(stamps: Sequence[Stamp], until_s: float) -> list[float]:
    """Seconds between commits of rank 0, within one process of it."""
    commits = [s for s in stamps if s.rank == 0 and s.kind == "commit" and s.t_s < until_s]
    return [b.t_s - a.t_s for a, b in itertools.pairwise(commits) if (a.pid, a.step + 1) == (b.pid, b.step)]


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def quiet_run(folder: Path, steps: int) -> int:
    """Alarms in a real run of short steps, some of them slow."""
    script_args = ("--steps", str(steps), "--slow-every", "50")
    with Training(folder, contenders.ours(*script_args), calibrated(0.005)) as training:
        training.watching.wait(lambda stamp: stamp.kind == "commit" and stamp.step == steps, 600.0)
        training.processes[0].popen.wait(60)
    events = events_of(folder)
    assert not [event for event in events if event.kind == "failure"], "the quiet run was not quiet"
    between = steps_before(training.watching.seen, float("inf"))
    say(
        f"{len(between) + 1} real steps: median {1000 * statistics.median(between):.1f} ms, "
        f"longest {1000 * max(between):.0f} ms"
    )
    return sum(event.kind == "hang" for event in events)


def alarms_of(step_s: float, steps: int) -> int:
    """Alarms of the detector in so many steps of two ranks on a clock of its own."""
    now_s = 0.0
    detector, alarms = hang.HangDetector((0, 1), now_s), 0
    cpu_s, look_s = [0.0, 0.0], 0.0
    for step, (duration_s, slow, idle) in enumerate(durations(step_s, steps), start=1):
        detector.enter(slow, "compute", now_s)
        detector.enter(1 - slow, "communication", now_s)
        end_s = now_s + duration_s
        while look_s < end_s:
            cpu_s[slow] += 0.0 if idle else look_s - now_s
            now_s = max(now_s, look_s)
            for rank in (0, 1):
                detector.look(rank, now_s, "S" if idle or rank != slow else "R", cpu_s[rank])
            alarms += detector.overdue(now_s) is not None
            look_s += detector.look_every_s()
        now_s = end_s
        for rank in (0, 1):
            cpu_s[rank] += min(duration_s, step_s)
            detector.observe(rank, step, now_s)
    return alarms


def durations(step_s: float, steps: int) -> Iterator[tuple[float, int, bool]]:
    """For every step how long it takes, which rank is behind, and whether that one burns no CPU meanwhile."""
    drawn = random.Random(0)
    for _ in range(steps):
        slow = drawn.random() < 0.005
        seconds = step_s * drawn.lognormvariate(0.0, 0.1) * (10 if slow else 1)
        yield seconds, drawn.randrange(2), slow and drawn.random() < 0.5


def events_of(folder: Path) -> list[Event]:
    with open_store(f"sqlite:///{folder}/home/store.db") as store:
        return store.events(store.run("last").id)


def share(truths: Sequence[bool]) -> Figure:
    value = statistics.fmean(truths)
    return Figure(value, "share", float(min(truths)), float(max(truths)), len(truths))


def counted(alarms: Sequence[int]) -> Figure:
    return Figure(float(sum(alarms)), "alarms", float(min(alarms)), float(max(alarms)), len(alarms))


if __name__ == "__main__":
    main(NAME, measure, packages=("torch",))
