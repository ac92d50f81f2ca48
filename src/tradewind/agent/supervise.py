"""Keep a run's workers alive: start them, notice an exit at once, replace it, let survivors re-enter in place."""

import os
import selectors
import shutil
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind.agent.group import Group
from tradewind.agent.hangs import HangWatch
from tradewind.agent.host import LocalHost
from tradewind.agent.job import Job
from tradewind.agent.journal import JournalTail, make_folder
from tradewind.agent.judge import Judge, hung
from tradewind.agent.policy import Decision, Step, decide, finish_asked, follow
from tradewind.agent.recorder import Progress, Recorder
from tradewind.agent.recovery import Action
from tradewind.agent.remote import RemoteHost
from tradewind.agent.roster import Roster, Seat
from tradewind.agent.standby import Standby, standby_of
from tradewind.agent.watch import FolderWatch, Signals
from tradewind.agent.worker import LocalWorker, Worker
from tradewind.diagnose.first_failure import Failure
from tradewind.diagnose.hang import Hang
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.store import Store

_COALESCE_S = 0.05
"""After a written file was seen, further writes are gathered this long; exits are never delayed by it."""
_REST_S = 0.5
"""After files were read, they are not looked at for so long: workers write at every step, and each time that this
process wakes it takes a core from one of them."""
_FLUSH_S = 0.5

OnUpdate = Callable[[Progress], None]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    state: str
    exit_code: int
    reason: str
    attempts: int
    failure: Failure | None = None


def supervise(
    job: Job, store: "Store", on_update: OnUpdate | None = None, seat: Seat | None = None
) -> Outcome:
    """Run `job` to its end, recording attempts, events and metrics in `store`.

    Call it from the main thread: it handles SIGINT (stop) and SIGTERM (preempt) by asking the workers to
    checkpoint and end; a second signal ends them at once.
    """
    started_s = (
        store.run(job.run).started_s or time.time()
    )  # Not the first agent, where a run is started again.
    store.update_run(
        job.run, state="running", started_s=started_s, ended_s=None, exit_code=None, pid=os.getpid()
    )
    job.control_dir.mkdir(exist_ok=True)
    first = max((a.index for a in store.attempts(job.run)), default=-1) + 1
    with Signals() as signals, standby_of(job) as standby:
        supervisor = Supervisor(job, store, standby, on_update, seat or Seat())
        try:
            outcome = supervisor.run(signals, first)
        finally:
            supervisor.close()
    store.update_run(job.run, state=outcome.state, ended_s=time.time(), exit_code=outcome.exit_code)
    supervisor.finish(outcome)
    return outcome


class Supervisor:
    """The loop over one run's attempts; one instance per run."""

    def __init__(
        self, job: Job, store: "Store", standby: Standby, on_update: OnUpdate | None, seat: Seat
    ) -> None:
        self.job = job
        capacity = None if seat.door is None else job.per_host
        self.local = LocalHost(job, standby, index=seat.index, address=seat.address, capacity=capacity)
        self.roster = Roster(job.run, self.local, seat, self)
        self.recorder = Recorder(job.run, store)
        self.on_update = on_update
        self.failure: Failure | None = None
        self.group = Group(job.workers)
        self._judge = Judge(job)
        self._tails: list[JournalTail] = []
        self._asked: str | None = None
        self._told_before = False
        self._wanted = job.workers
        self._enough: int | None = None
        """Workers with which the next attempt may begin; None for all that are wanted."""
        self._gather_until: float | None = None
        self._outcome: Outcome | None = None
        self._next = Decision(Step.WAIT)
        self._hangs = HangWatch(job)
        self._hang: Hang | None = None
        self._resume_at: float | None = None
        self._leaving = False
        self._kill_at: float | None = None
        self._files_at: float | None = None
        self._flush_at: float | None = None

    def run(self, signals: Signals, first: int) -> Outcome:
        """Attempt after attempt until the policy says that the run is over."""
        attempt = first
        while True:
            decision = self._attempt(attempt, attempt - first, signals)
            if decision.step is Step.FINISH:
                self.recorder.flush()
                self._outcome = Outcome(
                    state=decision.state,
                    exit_code=decision.exit_code,
                    reason=decision.reason,
                    attempts=attempt - first + 1,
                    failure=self.failure,
                )
                return self._outcome
            attempt = self.group.attempt + 1

    def _attempt(self, attempt: int, restarts: int, signals: Signals) -> Decision:
        """Form a group and watch it until nobody is at work and it is decided what comes next."""
        self._files_at = None  # The files of the attempt before have been read, and its watch is gone.
        with selectors.DefaultSelector() as selector, FolderWatch() as files:
            selector.register(signals.fd, selectors.EVENT_READ, "signal")
            selector.register(files.fd, selectors.EVENT_READ, "files")
            self.roster.watch(selector)
            given_up = self._gather(selector, files, signals)
            if given_up is not None:
                return given_up
            self._start(max(attempt, self.roster.attempt + 1), restarts, files)
            for worker in self.local.workers.values():
                selector.register(worker.pidfd, selectors.EVENT_READ, worker)
                selector.register(worker.control.fileno(), selectors.EVENT_READ, worker.hear)
            while True:
                self._wait(selector, files, signals)
                decision = self._decide()
                if decision.step in (Step.DRAIN, Step.BREAK):
                    self._end_others(decision.step)
                elif decision.step is not Step.WAIT:
                    self._conclude(decision)
                    return decision

    def _gather(
        self, selector: selectors.BaseSelector, files: FolderWatch, signals: Signals
    ) -> Decision | None:
        """Wait until the hosts that are there have room; what to do instead when they do not come."""
        if self._target >= self._needed:
            return None  # As ever on one host.
        self._gather_until = time.monotonic() + self.job.host_wait_s
        self.recorder.event("waiting", data={"for_workers": self._needed, "room": self._target})
        self._flush()
        while self._target < self._needed:
            if self._asked:
                return finish_asked((), self._asked)
            if time.monotonic() >= self._gather_until:
                if 0 < self.job.min_hosts * self.job.per_host <= self._target:
                    break
                came = f"room for {self._target} of {self._needed} workers after {self.job.host_wait_s:g} s"
                return Decision(Step.FINISH, "requeued", ExitCode.REQUEUE, f"too few hosts came: {came}")
            self._wait(selector, files, signals)
        self._gather_until = None
        return None

    @property
    def _needed(self) -> int:
        """Workers for which there must be room before the next attempt begins."""
        return min(self._wanted, self._enough or self._wanted)

    @property
    def _target(self) -> int:
        """How many workers the run could have now."""
        capacity = self.roster.capacity
        return self._wanted if capacity is None else min(self._wanted, capacity)

    def _start(self, attempt: int, restarts: int, files: FolderWatch) -> None:
        """Form the group of one attempt out of survivors and new workers."""
        job, started_s = self.job, time.time()
        make_folder(job.log(attempt, 0))
        make_folder(job.journal(attempt, 0))
        for folder in (job.journal(attempt, 0).parent, job.control_dir):
            files.add(folder)
        if self.on_update:
            files.add(job.log(attempt, 0).parent)
        self._enough = None
        self.group = Group(self._target, attempt)
        self._leaving, self._kill_at, self._resume_at, self._hang = False, None, None, None
        self.group.start(self.roster.hosts, restarts)
        local = [worker for worker in self.group if isinstance(worker, LocalWorker)]
        self._tails = [JournalTail(job.journal(attempt, worker.rank), worker.rank) for worker in local]
        self._hangs.begin(self.group, self.recorder.progress.step or 0)
        self._record_start(started_s, {"port": self.group.port, "restarts": restarts})

    def _record_start(self, started_s: float, data: dict[str, int]) -> None:
        group = self.group
        about = {"workers": group.size, "kept": group.kept} | data
        self.recorder.attempt_started(group.attempt, started_s, about)
        for worker in group:
            log = str(self.job.log(group.attempt, worker.rank))
            about = {"pid": worker.pid, "log": log, "kept": worker.rank in group.kept}
            if self.job.hosts > 1:
                about["host"] = group.hosts[worker.rank].name
            self.recorder.event("worker_started", rank=worker.rank, t_s=worker.started_s, data=about)
        self._flush()

    def _wait(self, selector: selectors.BaseSelector, files: FolderWatch, signals: Signals) -> None:
        """Sleep until something happens, and take it in."""
        for key, _ in selector.select(self._timeout_s()):
            if key.fd not in selector.get_map():
                continue  # What came before in this round has let go of it.
            if isinstance(key.data, LocalWorker):
                selector.unregister(key.fd)
                key.data.reap()
                self.worker_ended(key.data)
            elif callable(key.data):
                if key.data() is False:
                    selector.unregister(key.fd)
            elif key.data == "signal":
                self._told(signals.read())
            else:
                selector.unregister(files.fd)
                self._files_at = time.monotonic() + _COALESCE_S
        now = time.monotonic()
        if self._files_at is not None and now >= self._files_at:
            if files.drain():
                self._files_at = now + _REST_S
                self._read_files()
            else:
                self._files_at = None
                selector.register(files.fd, selectors.EVENT_READ, "files")
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.group.kill()
        if self._hangs.look_at is not None and now >= self._hangs.look_at:
            self._look_for_hang()
        if self._flush_at is not None and now >= self._flush_at:
            self._flush()
        if self.roster.look_at is not None and now >= self.roster.look_at:
            self.roster.look()

    def _look_for_hang(self) -> None:
        """Ask whether the group moves; if not, note what it is stuck in and end who holds it up."""
        hang = self._hangs.look()
        if hang is None or self._hang is not None or self._leaving:
            return
        self._read_files()  # By the steps that were not read yet it may be moving.
        hang = self._hangs.overdue()
        if hang is None:
            return
        self._hang = hang
        self._hangs.stop()
        about = msgspec.to_builtins(hang) | self._hangs.evidence()
        self.recorder.event("hang", rank=hang.ranks[0], data=about)
        for worker in self.group:
            if worker.rank in hang.ranks and worker.running:
                worker.end_hung()

    def _timeout_s(self) -> float | None:
        """How long nothing needs to be done if nothing happens."""
        if self._flush_at is None and self.recorder.dirty:
            self._flush_at = time.monotonic() + _FLUSH_S
        alarms = (
            self._files_at,
            self._kill_at,
            self._flush_at,
            self._resume_at,
            self._hangs.look_at,
            self._gather_until,
            self.roster.look_at,
        )
        due = [t for t in alarms if t is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read_files(self) -> None:
        """What workers and people wrote: journals, and a wish for another number of workers."""
        for tail in self._tails:
            for entry in tail.read():
                self.journal_entry(self.group.attempt, tail.rank, entry)
        wanted = self.job.read_wanted() or self._wanted
        if wanted != self._wanted:
            self.recorder.event("resize", data={"from": self._wanted, "to": wanted})
            self._wanted = wanted
        if self.on_update:
            self.on_update(self.recorder.progress)

    def journal_entry(self, attempt: int, rank: int, entry: dict[str, Any]) -> None:
        """Take in what a rank of this host or another wrote."""
        if attempt != self.group.attempt:
            return
        self.recorder.journal(rank, entry)
        self._hangs.journal(rank, entry)

    def worker_ended(self, worker: Worker) -> None:
        """Record an exit."""
        code = worker.exit_code or 0
        data = {"exit_code": code, "signal": -code if code < 0 else None, "told": worker.told}
        self.recorder.event("worker_exit", rank=worker.rank, t_s=worker.ended_s, data=data)

    def host_came(self, host: RemoteHost) -> None:
        """Record that a host can be used; a group that lacks workers is formed anew."""
        about = {"host": host.name, "address": host.address, "parked": len(host.parked)}
        self.recorder.event("host_came", data=about)

    def host_lost(self, host: RemoteHost, why: str) -> None:
        """Record that a host is gone."""
        self.recorder.event("host_lost", data={"host": host.name, "address": host.address, "why": why})

    def found(self, host: RemoteHost, evidence: dict[str, Any]) -> None:
        """Record what workers of another host were in the middle of."""
        self.recorder.event("hang_evidence", data={"host": host.name} | evidence)

    def asked(self, signum: int) -> None:
        """Another host was told to end: the run commits everywhere and ends, to be started again.

        Where a whole gang is told, every host says so; only one that is told twice is in a hurry, and it knows itself.
        """
        self._ask(signum)

    def _told(self, signums: list[int]) -> None:
        """A signal to this agent: ask the workers to end, or at the second one end them."""
        for signum in signums:
            if self._told_before:
                self._kill_at = time.monotonic()
            self._told_before = True
            self._ask(signum)

    def _ask(self, signum: int) -> None:
        """Ask the workers of all hosts to end, once."""
        if self._asked is None:
            self._asked = "stop" if signum == signal.SIGINT else "preempt"
            self.recorder.event("asked", data={"to": self._asked})
            self.recorder.progress.state = "stopping"

    def _decide(self) -> Decision:
        if self.group.is_over:
            self._read_files()
        decision = decide(
            self.group.ended,
            workers=self.group.size,
            parked=self.group.parked,
            asked=self._asked,
            resized=self._target != self.group.size,
        )
        return self._recover() if decision.step is Step.RECOVER else decision

    def _recover(self) -> Decision:
        """Name the first failure, ask the policy what to do about it, and let its delay pass."""
        if self._resume_at is None:
            self._give_verdict()
        if self._resume_at is not None and time.monotonic() < self._resume_at:
            return Decision(Step.WAIT)
        return self._next

    def _give_verdict(self) -> None:
        found = self.group.first_failure()
        assert found is not None, "decide() said that a worker failed"
        self.failure, seen_s = found
        if self._hang is not None:
            self.failure = hung(self.failure, self._hang)
        self.recorder.failure(self.failure, seen_s)
        committed = self.recorder.progress.step or 0
        verdict = self._judge.judge(self.group, self.roster.hosts, self.failure, seen_s, committed)
        self.recorder.event("verdict", rank=self.failure.rank, data=verdict.event())
        self._next = follow(verdict)
        self._enough = verdict.workers if verdict.action is Action.SHRINK else None
        self._resume_at = time.monotonic() + verdict.delay_s

    def _end_others(self, step: Step) -> None:
        """Ask those still at work, once, to end or to leave the group, with a deadline for SIGKILL."""
        if self._leaving:
            return
        self._leaving = True
        self._hangs.stop()
        patience_s = self.job.grace_s if step is Step.DRAIN else self.job.survivor_s
        self._kill_at = time.monotonic() + patience_s
        if step is Step.DRAIN:
            self.group.terminate()
        else:
            self.group.break_up()

    def close(self) -> None:
        """Leave nothing behind, however it ended."""
        self.group.kill(parked=True)
        ended = self._outcome
        self.roster.close(None if ended is None else (ended.exit_code, ended.reason))
        self.local.release(())
        shutil.rmtree(self.job.memory_dir, ignore_errors=True)

    def _conclude(self, decision: Decision) -> None:
        state = decision.state or "failed"
        self.recorder.attempt_ended(state, decision.exit_code or int(state == "failed"), decision.reason)

    def _flush(self) -> None:
        self._flush_at = None
        self.recorder.flush()
        if self.on_update:
            self.on_update(self.recorder.progress)

    def finish(self, outcome: Outcome) -> None:
        """Show the end to whoever watches."""
        self.recorder.progress.state = outcome.state
        if self.on_update:
            self.on_update(self.recorder.progress)
