"""Share of wall time that went into steps that stood, while workers are killed at random: one a minute on average.

The training is that of `bench/recovery.py`. Kills come at the instants of one seeded Poisson process over all
slices together, its intervals scaled so that their mean is the stated one, and hit a random worker. Every contender
runs the same slices with the same kills, in turn; a slice is a fresh run, observed for a fixed time that begins
when both workers have committed ten steps.

A step's productive time is what rank 0 stamps between its beginning and its commit, of the attempt whose commit
stood; a step that had to be done again counts once. Goodput is that, over all slices, by the time observed: start-up
does not count, but restarts, work done again, checkpoints, and whatever happens between two steps do.

- `tradewind`: `tradewind run` and `train.Loop` as they come: state goes into memory as often as 0.2% of the time
  allows, to disk every 100 steps.
- `torchrun`: its own store at every restart (without it a kill may cost several restarts, or a hang), monitor interval
  0.02 s, DDP, Distributed Checkpoint once a second. With `--fork` a third, `torchrun fork`: see `bench/recovery.py`.

`ledger_error` is the largest |sum of buckets - wall| / wall over ranks and runs, of `tradewind show RUN --ledger`.
The buckets are made to add up, so `ledger_step_error` holds them against the stamps: the difference between the
ledger's compute, communication and recompute of rank 0 and the seconds that it stamped inside steps, by wall time.

A checkpoint a second is near Young's optimum, sqrt(2 x cost x mean time between failures), for the 10 ms or so that
one costs here.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import Figure, Options, interleave, main, say
from bench.peers.training import contenders
from bench.peers.training.driver import RECOVER_S, Training, is_worker
from bench.peers.training.stamps import Stamp
from bench.peers.training.task_environment import calibrated
from bench.peers.training.watching import Late

NAME = "goodput"
EVERY = 20
OURS, OWN, FORK = "tradewind", "torchrun", "torchrun fork"


@dataclasses.dataclass(frozen=True)
class Observed:
    """One slice of one contender."""

    wall_s: float
    productive_s: float
    kills: int

    @property
    def goodput(self) -> float:
        return self.productive_s / self.wall_s


def measure(options: Options) -> Mapping[str, Figure]:
    """Train under random kills, contenders in turn, and count what stood."""
    slice_s = options.extra.slice_s or (15.0 if options.quick else 36.0)
    mtbf_s = 10.0 if options.quick else options.extra.mtbf_s
    schedule = kills_of(options.repeats, slice_s, mtbf_s)
    say(f"kills at {[[round(at_s, 1) for at_s, _ in part] for part in schedule]} s of each slice")
    everyone = {OURS: contenders.ours(), OWN: contenders.torchrun(EVERY, share_store=False)}
    if options.extra.fork:
        everyone[FORK] = contenders.torchrun(EVERY, share_store=False, fork=True)
    with tempfile.TemporaryDirectory(prefix="goodput-") as folder:
        slices = Slices(Path(folder), calibrated(), schedule, slice_s)
        interleave({n: slices.of(n, c) for n, c in everyone.items()}, options.repeats, warmup=0)
        return slices.figures()


def kills_of(slices: int, slice_s: float, mtbf_s: float, seed: int = 0) -> list[list[tuple[float, int]]]:
    """For every slice, when to kill and whom; over all slices the mean interval is `mtbf_s`."""
    drawn = random.Random(seed)
    whole_s = slices * slice_s
    count = max(1, round(whole_s / mtbf_s))
    intervals = [drawn.expovariate(1.0) for _ in range(count + 1)]
    instants = [whole_s * sum(intervals[: i + 1]) / sum(intervals) for i in range(count)]
    parts: list[list[tuple[float, int]]] = [[] for _ in range(slices)]
    for at_s in instants:
        parts[int(at_s // slice_s)].append((at_s % slice_s, drawn.randrange(2)))
    return parts


class Slices:
    """Runs slices and keeps what was observed, by contender."""

    def __init__(
        self, root: Path, work: int, schedule: Sequence[Sequence[tuple[float, int]]], slice_s: float
    ) -> None:
        self.observed: dict[str, list[Observed]] = defaultdict(list)
        self.ledger_errors: list[float] = []
        self.step_errors: list[float] = []
        self._root, self._work, self._schedule, self._slice_s = root, work, schedule, slice_s

    def of(self, name: str, commands: contenders.Commands) -> Callable[[], float]:
        """A contender for `interleave`."""
        return lambda: self.run(name, commands)

    def run(self, name: str, commands: contenders.Commands) -> float:
        """The contender's next slice; its goodput."""
        number = len(self.observed[name])
        folder = self._root / f"{name.replace(' ', '-')}-{number}"
        with Training(folder, commands, self._work) as training:
            training.settle()
            begun_s = time.time()
            killed_s = kill_by(self._schedule[number], training, begun_s, self._slice_s)
            await_resumed(training, killed_s)
        observed = observe(training.watching.seen, begun_s, self._slice_s, len(killed_s))
        self.observed[name].append(observed)
        if name == OURS:
            self._hold_ledger(folder, training.watching.seen)
        return observed.goodput

    def _hold_ledger(self, folder: Path, stamps: Sequence[Stamp]) -> None:
        """Take in what `tradewind show` says of where our time went."""
        shown = ledger_of(folder)
        wall_s, ranks = shown["wall_s"], shown["rank_ledgers"]
        self.ledger_errors += [abs(sum(ledger.values()) - wall_s) / wall_s for ledger in ranks.values()]
        in_steps_s = sum(ranks["0"][name] for name in ("compute", "communication", "recompute"))
        stamped_s = sum(end_s - begin_s for _, begin_s, end_s in steps_of(stamps))
        self.step_errors.append(abs(in_steps_s - stamped_s) / wall_s)

    def figures(self) -> dict[str, Figure]:
        """Goodput over all slices; low and high are those of single slices."""
        keys = {OURS: "goodput", OWN: "goodput_torchrun", FORK: "goodput_torchrun_fork"}
        figures = {key: pooled(self.observed[name]) for name, key in keys.items() if name in self.observed}
        figures["ledger_error"] = largest(self.ledger_errors)
        figures["ledger_step_error"] = largest(self.step_errors)
        kills = [float(slice_.kills) for slice_ in self.observed[OURS]]
        figures["kills"] = Figure(sum(kills), "kills", min(kills), max(kills), len(kills))
        return figures


def kill_by(
    schedule: Sequence[tuple[float, int]], training: Training, begun_s: float, wall_s: float
) -> list[float]:
    """Kill as scheduled until `wall_s` have passed; the instants at which somebody was there to be killed."""
    killed_s = []
    for at_s, rank in schedule:
        time.sleep(max(0.0, begun_s + at_s - time.time()))
        try:
            kill_newest(training, rank, begun_s + wall_s)
        except Late:
            break  # It has not come back from the last kill yet.
        killed_s.append(time.time())
    time.sleep(max(0.0, begun_s + wall_s - time.time()))
    return killed_s


def kill_newest(training: Training, rank: int, until_s: float) -> None:
    """SIGKILL to the process of `rank`; if it is dead already, to the next one, as soon as it stamps."""
    training.watching.read()
    newest = [stamp for stamp in training.watching.seen if stamp.rank == rank][-1]
    if not is_worker(newest.pid, training.folder):
        newest = training.watching.wait(lambda stamp: stamp.rank == rank, max(0.0, until_s - time.time()))
    os.kill(newest.pid, signal.SIGKILL)


def await_resumed(training: Training, killed_s: Sequence[float]) -> None:
    """Let a recovery under way show what it took back of the time observed."""

    def resumed(seen: list[Stamp]) -> bool:
        return any(s.rank == 0 and s.kind == "resumed" and s.t_s > killed_s[-1] for s in seen)

    if killed_s:
        training.watching.wait_all(resumed, RECOVER_S)


def steps_of(stamps: Sequence[Stamp]) -> list[tuple[int, float, float]]:
    """Every step that rank 0 committed: its number, beginning and commit, in order."""
    begun: dict[tuple[int, int], float] = {}
    steps = []
    for stamp in stamps:
        if stamp.rank == 0 and stamp.kind == "begin":
            begun[stamp.pid, stamp.step] = stamp.t_s
        elif stamp.rank == 0 and stamp.kind == "commit":
            steps.append((stamp.step, begun[stamp.pid, stamp.step], stamp.t_s))
    return steps


def observe(stamps: Sequence[Stamp], begun_s: float, wall_s: float, kills: int) -> Observed:
    """What stood at the end of the time observed: a restart takes back what it does not resume after."""
    ended_s = begun_s + wall_s
    inside = [stamp for stamp in stamps if stamp.t_s <= ended_s]
    resumed = [(s.t_s, s.step) for s in stamps if s.rank == 0 and s.kind == "resumed"]
    stood: dict[int, float] = {}
    for step, from_s, to_s in steps_of(inside):
        lost = any(to_s < at_s and step > kept for at_s, kept in resumed)
        if from_s >= begun_s and not lost:
            stood[step] = to_s - from_s
    return Observed(wall_s, sum(stood.values()), kills)


def ledger_of(folder: Path) -> dict[str, Any]:
    """What `tradewind show` prints of the one run in this slice's home."""
    command = [str(Path(sys.executable).with_name("tradewind")), "show", "last", "--ledger", "-o", "json"]
    environment = os.environ | {"TRADEWIND_HOME": str(folder / "home")}
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout
    shown: dict[str, Any] = json.loads(printed)
    return shown


def pooled(slices: Sequence[Observed]) -> Figure:
    """All productive time by all time observed."""
    each = [slice_.goodput for slice_ in slices]
    value = sum(s.productive_s for s in slices) / sum(s.wall_s for s in slices)
    return Figure(value, "share", min(each), max(each), len(each))


def largest(errors: Sequence[float]) -> Figure:
    return Figure(max(errors), "share", min(errors), max(errors), len(errors))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slice-s", type=float, default=0.0, help="length of a slice (default 36)")
    parser.add_argument("--mtbf-s", type=float, default=60.0, help="mean time between failures")
    parser.add_argument("--fork", action="store_true", help="add torchrun with forked workers")


if __name__ == "__main__":
    main(NAME, measure, packages=("torch",), add_flags=add_flags)
