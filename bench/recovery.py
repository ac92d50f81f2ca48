"""Seconds from `kill -9` of a worker in the middle of a step to the next committed optimizer step.

Two workers train the same small model (`bench/peers/training/task.py`): a step is about 50 ms of one core of
arithmetic, a forward and backward pass, an exchange of gradients and AdamW. Every worker stamps its steps
itself. A session is a fresh start; after ten steps rank 0 or 1 is killed, after ten steps of the recovered
group the other one, at moments of a step drawn alike for all. A session's value is the mean of its two kills.

- `tradewind`: `tradewind run` as it comes, torch's DDP, `train.Loop(max_recompute=1)`: state into memory every step.
- `torchrun`: torch 2.13's, `--standalone`, monitor interval 0.02 s (0.1 by default), DDP, a Distributed
  Checkpoint after every step; once as it comes (the workers share the rendezvous's store) and once with
  TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1. The better of both is `torchrun` in the figures.
- `torchrun fork`: the same with its own store and `--run-path --start-method fork`, by which workers are forked
  from an agent that has imported torch. Documented, seldom used: it forks a process that runs threads. The first
  kill of a session pays for what the agent imports at its first failure.
- `torchft`: 0.2.0, a lighthouse and two replica groups of one worker, min_replica_size 1, each started again
  the instant it ends. Heartbeats every 25 ms, dead after 250 ms of silence (`--torchft-ms`; by default 100 ms
  and 5 s), quorum tick 10 ms. Two figures: until the survivor commits a step on its own, with half the batch
  (torchft's recovery: lossy, and the fastest), and until the killed replica is back and commits.

In all but torchft's first figure the next committed step is one that a whole group commits, beyond every step
committed before the kill. `tradewind fsdp2` is ours with the model sharded by `fully_shard` over both workers.

`seconds_host` is the loss of a host of two (`bench/peers/training/hosts.py`): network namespaces as hosts, the cable
pulled and everything on it killed, a spare host at hand. Half of it is the lease: 250 ms of silence, as for torchft, once
the run knows its hosts (`lease_s` in the spec; 1 s by default).
`recomputed_host` counts the steps that were done again, whose commits the loss undid. Nobody else takes part.

With `--device cuda:0` model and optimizer are on a GPU that both workers share, with gloo between them, as NCCL refuses
that: what comes back is a worker's context on the device and its state there. No hosts are lost then.
"""

import argparse
import dataclasses
import itertools
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.harness import Figure, Options, interleave, main, ratio, say
from bench.peers.training import contenders
from bench.peers.training.breakdown import Phases, by_rank, recoveries_of
from bench.peers.training.driver import RECOVER_S, Recovery, Training
from bench.peers.training.hosts import hosts
from bench.peers.training.task_environment import calibrated
from bench.peers.training.watching import Late
from tradewind.store import Event, open_store

NAME = "recovery"
OURS, FSDP2 = "tradewind", "tradewind fsdp2"
SHARED, OWN, FORK = "torchrun", "torchrun own store", "torchrun fork"
TORCHFT = "torchft"
EVERY_STEP = ("--max-recompute", "1")


def measure(options: Options) -> Mapping[str, Figure]:
    """Kill workers of every contender in turn, and time their way back."""
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        sessions = Sessions(Path(folder), calibrated(), options.extra.device)
        if options.extra.explain:
            sessions.run(OURS, contenders.ours(*EVERY_STEP))
            explain(sessions)
            return {}
        chosen = contenders_of(options)
        interleave(
            {name: sessions.of(name, commands) for name, commands in chosen.items()},
            options.repeats,
            warmup=0,
        )
        explain(sessions)
        if options.extra.device != "cpu":
            return figures_of(sessions)
        return (
            figures_of(sessions) | sharded(sessions, options.repeats) | lost_hosts(sessions, options.repeats)
        )


def contenders_of(options: Options) -> dict[str, contenders.Commands]:
    """Who takes part: all, or in the smoke form ours and one torchrun."""
    dead_ms = options.extra.torchft_ms
    timeouts = contenders.TorchftTimeouts(dead_ms, dead_ms // 10, dead_ms)
    everyone = {
        OURS: contenders.ours(*EVERY_STEP),
        SHARED: contenders.torchrun(1, share_store=True),
        OWN: contenders.torchrun(1, share_store=False),
        FORK: contenders.torchrun(1, share_store=False, fork=True),
        TORCHFT: contenders.torchft(timeouts),
    }
    wanted = options.extra.only.split(",") if options.extra.only else [*everyone]
    if options.quick and not options.extra.only:
        wanted = [OURS, FORK]
    return {name: everyone[name] for name in wanted}


class Sessions:
    """Fresh trainings with two kills each, and what came of every kill, by contender."""

    def __init__(self, root: Path, work: int, device: str) -> None:
        self.recoveries: dict[str, list[list[Recovery]]] = defaultdict(list)
        self.phases: list[tuple[int, Phases]] = []
        self.root, self.work, self.device = root, work, device
        self._folder = root
        self._number = itertools.count()

    def of(self, name: str, commands: contenders.Commands) -> Callable[[], float]:
        """A contender for `interleave`."""
        return lambda: self.run(name, commands)

    def run(self, name: str, commands: contenders.Commands) -> float:
        """One session; the mean of its recoveries."""
        self._folder = folder = self.root / str(next(self._number))
        mine = self.recoveries[name]
        drawn = random.Random(len(mine))
        first = drawn.randrange(2)
        mine.append([])
        with Training(folder, commands, self.work, self.device) as training:
            for rank in (first, 1 - first):
                training.settle()
                mine[-1].append(training.kill(rank, drawn.uniform(0.005, 0.035)))
                say(f"  {name}: {told(mine[-1][-1])}")
                if mine[-1][-1].hung and name in (OURS, FSDP2):
                    raise Late(f"our own run did not recover: {self.last_failure()}")
                if mine[-1][-1].hung:
                    break
        if name == OURS:
            self._explain(training, mine[-1])
        return statistics.mean(recovery.seconds for recovery in mine[-1])

    def _explain(self, training: Training, recoveries: list[Recovery]) -> None:
        kills = [recovery.killed_s for recovery in recoveries]
        self.phases += recoveries_of(events_of(self._folder), training.watching.seen, kills)

    def last_failure(self) -> str | None:
        """What the last failure of our latest session said."""
        failures = [event for event in events_of(self._folder) if event.kind == "failure"]
        return str(failures[-1].data["exception"]) if failures else None


def events_of(folder: Path) -> list[Event]:
    """What the one run of a session's own store recorded."""
    with open_store(f"sqlite:///{folder}/home/store.db") as store:
        return store.events(store.run("last").id)


def told(recovery: Recovery) -> str:
    """One kill in a line."""
    how = "" if recovery.in_step else ", killed between two steps"
    end = f"not back after {RECOVER_S:.0f} s" if recovery.hung else f"back after {recovery.seconds:.3f} s"
    return f"rank {recovery.rank} {end}, survivor {recovery.survivor_seconds:.3f} s, {recovery.starts} starts{how}"


def explain(sessions: Sessions) -> None:
    """Say where the seconds of our recoveries went."""
    for line in by_rank(sessions.phases):
        say(line)


def figures_of(sessions: Sessions) -> dict[str, Figure]:
    """Medians over sessions, and ratios of sessions that ran next to each other."""
    whole = {name: [mean_of(s, "seconds") for s in kept] for name, kept in sessions.recoveries.items()}
    ordinary = [name for name in (SHARED, OWN) if name in whole]
    if ordinary:
        whole["better"] = whole[min(ordinary, key=lambda name: statistics.median(whole[name]))]
    names = {"better": "torchrun", FORK: "torchrun_fork", TORCHFT: "torchft_whole"}
    against = {key: whole[name] for name, key in names.items() if name in whole}
    if TORCHFT in whole:
        against["torchft"] = [mean_of(s, "survivor_seconds") for s in sessions.recoveries[TORCHFT]]
    figures = {"seconds_worker": Figure.of(whole[OURS], "s")}
    figures |= {f"seconds_{key}": Figure.of(seconds, "s") for key, seconds in against.items()}
    figures |= {f"ratio_{key}": ratio(whole[OURS], seconds) for key, seconds in against.items()}
    return figures | starts_of(sessions)


def mean_of(session: list[Recovery], what: str) -> float:
    """The mean of one quantity over a session's kills."""
    return statistics.mean(dataclasses.asdict(recovery)[what] for recovery in session)


def starts_of(sessions: Sessions) -> dict[str, Figure]:
    """How often torchrun started its workers for one kill, and how often it did not come back."""
    figures = {}
    for name, key in ((SHARED, "shared"), (OWN, "own_store"), (FORK, "fork")):
        kills = [recovery for session in sessions.recoveries.get(name, ()) for recovery in session]
        if kills:
            starts = [float(recovery.starts) for recovery in kills]
            mean = statistics.mean(starts)
            figures[f"restarts_torchrun_{key}"] = Figure(
                mean, "a kill", min(starts), max(starts), len(starts)
            )
            hangs = sum(recovery.hung for recovery in kills)
            figures[f"hangs_torchrun_{key}"] = Figure(hangs, "kills", hangs, hangs, len(kills))
    return figures


def sharded(sessions: Sessions, repeats: int) -> dict[str, Figure]:
    """The same kills with the model sharded, where the loop can store sharded tensors."""
    seconds = []
    for _ in range(repeats):
        try:
            seconds.append(sessions.run(FSDP2, contenders.ours(*EVERY_STEP, "--fsdp2", restarts=4)))
        except Late as late:
            why = sessions.last_failure() or str(late)
            say(f"seconds_fsdp2 is not measured, the sharded training does not recover: {why}")
            return {}
    return {"seconds_fsdp2": Figure.of(seconds, "s")}


def lost_hosts(sessions: Sessions, repeats: int) -> dict[str, Figure]:
    """Lose a host of two, as often."""
    found = []
    for number in range(repeats):
        with hosts(sessions.root / f"hosts{number}", sessions.work) as training:
            training.settle()
            found.append(training.lose(random.Random(number).uniform(0.005, 0.035)))
            say(f"  host lost, back after {found[-1].seconds:.3f} s, {found[-1].recomputed} steps done again")
    return {
        "seconds_host": Figure.of([lost.seconds for lost in found], "s"),
        "recomputed_host": Figure.of([lost.recomputed for lost in found], "steps"),
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", help=f"contenders, by comma: {OURS}, {SHARED}, {OWN}, {FORK}, {TORCHFT}; ours must be there"
    )
    parser.add_argument(
        "--torchft-ms", type=int, default=250, help="silence after which torchft gives one up"
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="where model and optimizer are: cuda:0 for a GPU that both workers share, where no hosts are lost",
    )
    parser.add_argument("--explain", action="store_true", help="only say where our own seconds go")


if __name__ == "__main__":
    main(NAME, measure, packages=("torch",), add_flags=add_flags)
