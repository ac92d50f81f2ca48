"""Inject faults into a run on this machine, at chosen steps or times, and count every one of them.

What happens is decided before it begins: a schedule is a list of injections, made by hand or from a seed.
The injector waits for what the workers journal, not for the clock, where an injection names a step; it
records each injection as an event of the run, so that the run's own report shows what was done to it.
"""

import heapq
import math
import os
import random
import select
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind import names
from tradewind.agent import faults
from tradewind.agent.job import job_of
from tradewind.agent.journal import JournalTail
from tradewind.agent.watch import FolderWatch
from tradewind.diagnose.process import read_process
from tradewind.errors import SpecError

if TYPE_CHECKING:
    from tradewind.store import Event, Run, Store

_ASK_S = 0.25
"""How often to ask the store whether the run is over: it offers no event to wait for."""
_OVER = ("succeeded", "failed", "requeued", "stopped")


class Kind(StrEnum):
    """What is done to a worker, or to what it stands on."""

    KILL = "kill"
    TERM = "term"
    """SIGTERM to one worker: the run is asked to commit and leave."""
    STOP = "stop"
    """SIGSTOP; with `seconds`, SIGCONT after that, if the worker still lives."""
    DELAY = "delay"
    """A short stop that nobody should take for a hang."""
    RESIZE = "resize"
    """The run is to go on with `workers`: in place, or else by leaving to be started again."""
    PARTITION = "partition"
    """The worker's network namespace loses its interfaces for `seconds`."""
    FULL_DISK = "full_disk"
    """No byte is left for checkpoints for `seconds`."""
    SLOW_DISK = "slow_disk"
    """Somebody else writes and syncs to the checkpoints' disk for `seconds`."""
    CORRUPT = "corrupt"
    """One bit of `path`, else of the newest checkpoint, is flipped."""


_SIGNALS = {
    Kind.KILL: signal.SIGKILL,
    Kind.TERM: signal.SIGTERM,
    Kind.STOP: signal.SIGSTOP,
    Kind.DELAY: signal.SIGSTOP,
}


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: what, to whom, and when: after a rank committed `step`, or `after_s` from the start."""

    kind: Kind
    rank: int = 0
    step: int | None = None
    after_s: float = 0.0
    seconds: float = 0.0
    """How long it lasts; 0 is for good."""
    workers: int = 0
    """For a resize: how many the run goes on with."""
    path: str = ""

    def __post_init__(self) -> None:
        if self.kind is Kind.DELAY and self.seconds <= 0:
            raise SpecError("a delay needs `seconds`; to stop a worker for good, inject a stop")
        if self.kind is Kind.RESIZE and self.workers < 1:
            raise SpecError("a resize needs `workers`, how many the run is to go on with")


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """An injection that happened."""

    injection: Injection
    attempt: int
    pid: int
    t_s: float
    step: int | None
    """The last step that the rank had committed, where it is known."""
    detail: str = ""


class Schedule:
    """Ways to make a list of injections; equal arguments give equal lists, on any machine."""

    @staticmethod
    def seeded(
        seed: int,
        ranks: int,
        steps: int,
        kinds: Sequence[Kind],
        *,
        most: int = 3,
        seconds: float = 2.0,
        worlds: Sequence[int] = (),
    ) -> list[Injection]:
        """One to `most` injections in distinct steps of a run of `steps` steps on `ranks` workers.

        A resize draws its workers from `worlds`, and what follows hits the ranks that there are then.
        """
        rng = random.Random(seed)
        count = min(rng.randint(1, most), steps - 1)
        found = []
        for step in sorted(rng.sample(range(1, steps), count)):
            kind = rng.choice(list(kinds))
            rank = rng.randrange(ranks)
            if kind is Kind.RESIZE:
                ranks = rng.choice([world for world in worlds if world != ranks])
                found.append(Injection(kind=kind, step=step, rank=rank, workers=ranks))
            else:
                lasts = 0.0 if kind in (Kind.KILL, Kind.TERM, Kind.CORRUPT) else seconds
                lasts = min(lasts, 0.3) if kind is Kind.DELAY else lasts
                found.append(Injection(kind=kind, step=step, rank=rank, seconds=lasts))
        return found

    @staticmethod
    def every(
        period_s: float,
        duration_s: float,
        ranks: int,
        kind: Kind,
        *,
        seed: int = 0,
        rank: int | None = None,
        seconds: float = 0.0,
    ) -> list[Injection]:
        """The same fault once a period, to one rank or to one drawn anew each time."""
        rng = random.Random(seed)
        return [
            Injection(
                kind=kind,
                after_s=period_s * (i + 1),
                rank=rng.randrange(ranks) if rank is None else rank,
                seconds=seconds,
            )
            for i in range(int(duration_s / period_s))
        ]


class StepWatch:
    """The steps that a run's workers commit, as they journal them."""

    def __init__(self, run_dir: Path) -> None:
        self._root = run_dir / names.JOURNAL_DIR
        self._root.mkdir(parents=True, exist_ok=True)
        self._watch = FolderWatch()
        self._watch.add(self._root)
        self._tails: dict[Path, JournalTail] = {}
        self.reached: dict[int, int] = {}
        """Rank -> the last step it committed."""

    @property
    def fd(self) -> int:
        """Readable when there may be something to read."""
        return int(self._watch.fd)

    def read(self) -> list[tuple[int, int]]:
        """(rank, step) of every step committed since the last read, each journal in its order."""
        self._watch.drain()
        found = []
        for path in sorted(self._root.glob("*/rank*.jsonl")):
            if path not in self._tails:
                self._watch.add(path.parent)
                self._tails[path] = JournalTail(path, int(path.stem.removeprefix("rank")))
            tail = self._tails[path]
            found += [(tail.rank, int(e["step"])) for e in tail.read() if e["kind"] == "step"]
        self.reached.update(found)
        return found

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._watch.fd)


class Injector:
    """Carries out a schedule on a run of this machine that has started or is about to."""

    def __init__(self, run: str, store: "Store", *, seed: int = 0) -> None:
        self.store = store
        self.run_id = store.run(run).id
        self.done: list[Done] = []
        self.missed: list[Injection] = []
        """What the run ended too early for."""
        self._rng = random.Random(seed)
        self._undo: list[tuple[float, int, Injection, faults.Undo]] = []

    @property
    def counts(self) -> Counter[str]:
        """How many of each kind happened."""
        return Counter(str(done.injection.kind) for done in self.done)

    def run(self, schedule: Iterable[Injection], *, timeout_s: float = math.inf) -> None:
        """Do one injection after the other, in the order given, until all are done or the run is over.

        What was to last only for a time is undone before this returns. After `timeout_s` the rest is
        missed. Raises TradewindError where a fault cannot be done on this machine.
        """
        pending = deque(schedule)
        began_s = time.monotonic()
        until_s = began_s + timeout_s
        watch = StepWatch(Path(self._run().dir))
        try:
            while (pending or self._undo) and time.monotonic() < until_s and not self._is_over():
                self._wait(watch, pending, began_s)
                self._undo_due(time.monotonic())
                self._do_due(pending, watch.read(), watch.reached, time.monotonic() - began_s)
        finally:
            self._undo_due(math.inf)
            watch.close()
        self.missed += pending

    def _run(self) -> "Run":
        return self.store.run(self.run_id)

    def _is_over(self) -> bool:
        """Whether the run has ended, or its agent has died without saying so."""
        run = self._run()
        if run.state in _OVER:
            return True
        if run.state != "running" or run.pid is None:
            return False
        agent = read_process(run.pid)
        return agent is None or agent.state == "Z"

    def _wait(self, watch: StepWatch, pending: Sequence[Injection], began_s: float) -> None:
        """Sleep until a step is journalled, something is due, or it is time to ask about the run."""
        now = time.monotonic()
        due = [now + _ASK_S, *(until for until, *_ in self._undo[:1])]
        if pending and pending[0].step is None:
            due.append(max(began_s + pending[0].after_s, now + _ASK_S / 10))
        select.select([watch.fd], [], [], max(0.0, min(due) - now))

    def _do_due(
        self,
        pending: deque[Injection],
        steps: Sequence[tuple[int, int]],
        reached: dict[int, int],
        elapsed_s: float,
    ) -> None:
        """Do what has become due by steps or by time; a worker that is gone is waited for."""
        for rank, step in steps:
            wanted = pending[0] if pending else None
            if wanted is None or wanted.step is None or step < wanted.step or rank != wanted.rank:
                continue
            if self._do(wanted, step):
                pending.popleft()
        while pending and pending[0].step is None and pending[0].after_s <= elapsed_s:
            if not self._do(pending[0], reached.get(pending[0].rank)):
                break
            pending.popleft()

    def _do(self, injection: Injection, step: int | None) -> bool:
        """Inject now; False when the worker is not there to be hit."""
        started = self._worker(injection.rank)
        if started is None:
            return False
        pid = int(started.data["pid"])
        try:
            detail, undo = self._inject(injection, pid)
        except ProcessLookupError:
            return False
        done = Done(
            injection=injection, attempt=started.attempt, pid=pid, t_s=time.time(), step=step, detail=detail
        )
        self.done.append(done)
        self._record("injected", done.attempt, injection, pid=pid, at_step=step, detail=detail)
        if undo is not None and injection.seconds > 0:
            until = time.monotonic() + injection.seconds
            heapq.heappush(self._undo, (until, len(self.done), injection, undo))
        return True

    def _worker(self, rank: int) -> "Event | None":
        """The newest start of this rank, if that very process still lives."""
        started = [e for e in self.store.events(self.run_id, kind="worker_started") if e.rank == rank]
        if not started:
            return None
        process = read_process(int(started[-1].data["pid"]))
        # A process that began after the worker did is another one, to which the number was given again.
        alive = process is not None and process.state != "Z" and process.started_s <= started[-1].t_s + 1.0
        return started[-1] if alive else None

    def _inject(self, injection: Injection, pid: int) -> tuple[str, faults.Undo | None]:
        """Do it; what there is to tell about it, and what undoes it."""
        if injection.kind in _SIGNALS:
            os.kill(pid, _SIGNALS[injection.kind])
            stops = injection.kind in (Kind.STOP, Kind.DELAY)
            return _SIGNALS[injection.kind].name, (lambda: continue_process(pid)) if stops else None
        if injection.kind is Kind.RESIZE:
            return ask_for(self._run(), injection.workers), None
        if injection.kind is Kind.PARTITION:
            return "interfaces down", faults.cut_network(pid)
        checkpoints = Path(self._run().dir) / names.CHECKPOINTS_DIR
        if injection.kind is Kind.CORRUPT:
            path = Path(injection.path) if injection.path else faults.newest_file(checkpoints)
            return f"bit {faults.corrupt_file(path, self._rng)} of {path}", None
        act: Callable[[Path], faults.Undo] = (
            faults.fill_disk if injection.kind is Kind.FULL_DISK else faults.slow_disk
        )
        return str(checkpoints), act(checkpoints)

    def _undo_due(self, now: float) -> None:
        while self._undo and self._undo[0][0] <= now:
            _, number, injection, undo = heapq.heappop(self._undo)
            undo()
            done = self.done[number - 1]
            self._record("injection_ended", done.attempt, injection, pid=done.pid)

    def _record(self, kind: str, attempt: int, injection: Injection, **data: Any) -> None:
        """Make it an event of the run, under `what`: `kind` is the event's own word."""
        from tradewind.store import Event

        about = msgspec.to_builtins(injection)
        about["what"] = about.pop("kind")
        event = Event(
            run=self.run_id,
            attempt=attempt,
            rank=injection.rank,
            t_s=time.time(),
            kind=kind,
            data={**about, **data},
        )
        self.store.add_events([event])


def ask_for(run: "Run", workers: int) -> str:
    """Ask a run's agent for another number of workers; one that takes no wishes is told to leave."""
    job = job_of(run)
    if not job.control_dir.is_dir():
        assert run.pid is not None, "a run with workers has an agent"
        os.kill(run.pid, signal.SIGTERM)
        return f"SIGTERM to agent {run.pid}"
    job.want(workers)
    return f"{workers} workers asked for"


def continue_process(pid: int) -> None:
    """SIGCONT, to a process that may have been replaced meanwhile."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


def read_kind(signal_name: str) -> Kind:
    """The kind that a signal's name stands for: KILL, TERM or STOP, with or without SIG."""
    kinds = {"KILL": Kind.KILL, "TERM": Kind.TERM, "STOP": Kind.STOP}
    name = signal_name.upper().removeprefix("SIG")
    if name not in kinds:
        raise SpecError(f"{signal_name!r} is no signal to inject; the choices are {', '.join(kinds)}")
    return kinds[name]
