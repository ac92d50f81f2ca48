"""Keep a run's workers alive: start them, notice an exit at once, replace it, let survivors re-enter in place."""

import os
import selectors
import shutil
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from tradewind import names
from tradewind.agent.group import Group
from tradewind.agent.hangs import HangWatch
from tradewind.agent.job import Job, free_port, shared_environment
from tradewind.agent.journal import JournalTail, make_folder
from tradewind.agent.policy import Decision, Step, decide, follow
from tradewind.agent.recorder import Progress, Recorder
from tradewind.agent.recovery import Fleet, Incident, Rules, recover
from tradewind.agent.standby import TORCH, Standby
from tradewind.agent.watch import FolderWatch, Signals
from tradewind.agent.worker import Worker
from tradewind.diagnose.cause import read_cause
from tradewind.diagnose.first_failure import Failure
from tradewind.diagnose.hang import Hang

if TYPE_CHECKING:
    from tradewind.store import Store

_COALESCE_S = 0.05
"""After a written file was seen, further writes are gathered this long; exits are never delayed by it."""
_FLUSH_S = 0.5

OnUpdate = Callable[[Progress], None]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    state: str
    exit_code: int
    reason: str
    attempts: int
    failure: Failure | None = None


def supervise(job: Job, store: "Store", on_update: OnUpdate | None = None) -> Outcome:
    """Run `job` to its end, recording attempts, events and metrics in `store`.

    Call it from the main thread: it handles SIGINT (stop) and SIGTERM (preempt) by asking the workers to
    checkpoint and end; a second signal ends them at once.
    """
    store.update_run(job.run, state="running", started_s=time.time(), pid=os.getpid())
    job.control_dir.mkdir(exist_ok=True)
    first = max((a.index for a in store.attempts(job.run)), default=-1) + 1
    with Signals() as signals, standby_of(job) as standby:
        supervisor = Supervisor(job, store, standby, on_update)
        try:
            outcome = supervisor.run(signals, first)
        finally:
            supervisor.close()
    store.update_run(job.run, state=outcome.state, ended_s=time.time(), exit_code=outcome.exit_code)
    supervisor.finish(outcome)
    return outcome


def standby_of(job: Job) -> Standby:
    """The run's standby; it imports torch beforehand where the script will."""
    log = job.run_dir / names.LOGS_DIR / "standby.log"
    make_folder(log)
    return Standby(shared_environment(job, os.environ), log, TORCH if uses_torch(job) else ())


def uses_torch(job: Job) -> bool:
    """Whether the script looks as if it imported torch; a wrong guess costs time and nothing else."""
    try:
        text = (job.workdir / job.script).read_bytes()
    except OSError:
        return False  # The worker will say what is wrong with it.
    return b"torch" in text or b"tradewind" in text


def hung(failure: Failure, hang: Hang) -> Failure:
    """The failure of a rank that was killed because it hung, named after the hang and not the signal."""
    return msgspec.structs.replace(failure, rank=hang.ranks[0], kind="hang", exception=hang.reason)


class Supervisor:
    """The loop over one run's attempts; one instance per run."""

    def __init__(self, job: Job, store: "Store", standby: Standby, on_update: OnUpdate | None) -> None:
        self.job = job
        self.standby = standby
        self.recorder = Recorder(job.run, store)
        self.on_update = on_update
        self.failure: Failure | None = None
        self.group = Group(job, job.workers)
        self._incidents: list[Incident] = []
        self._tails: list[JournalTail] = []
        self._asked: str | None = None
        self._wanted = job.workers
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
                return Outcome(
                    state=decision.state,
                    exit_code=decision.exit_code,
                    reason=decision.reason,
                    attempts=attempt - first + 1,
                    failure=self.failure,
                )
            attempt += 1

    def _attempt(self, attempt: int, restarts: int, signals: Signals) -> Decision:
        """Form a group and watch it until nobody is at work and it is decided what comes next."""
        with selectors.DefaultSelector() as selector, FolderWatch() as files:
            selector.register(signals.fd, selectors.EVENT_READ, "signal")
            selector.register(files.fd, selectors.EVENT_READ, "files")
            self._start(attempt, restarts, files)
            for worker in self.group:
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

    def _start(self, attempt: int, restarts: int, files: FolderWatch) -> None:
        """Form the group of one attempt out of survivors and new workers."""
        job, port, started_s = self.job, free_port(), time.time()
        make_folder(job.log(attempt, 0))
        make_folder(job.journal(attempt, 0))
        for folder in (job.journal(attempt, 0).parent, job.control_dir):
            files.add(folder)
        if self.on_update:
            files.add(job.log(attempt, 0).parent)
        before, self.group = self.group, Group(job, self._wanted, attempt)
        self._tails = [JournalTail(job.journal(attempt, rank), rank) for rank in range(self.group.size)]
        self._leaving, self._kill_at, self._resume_at, self._hang = False, None, None, None
        # The new group's files are watched afresh; those of the old one have been read.
        self._files_at = None
        self.group.start(self.standby, restarts, port, before)
        self._hangs.begin(self.group, self.recorder.progress.step or 0)
        self._record_start(started_s, {"port": port, "restarts": restarts})

    def _record_start(self, started_s: float, data: dict[str, int]) -> None:
        group = self.group
        about = {"workers": group.size, "kept": group.kept} | data
        self.recorder.attempt_started(group.attempt, started_s, about)
        for worker in group:
            log = str(self.job.log(group.attempt, worker.rank))
            about = {"pid": worker.pid, "log": log, "kept": worker.rank in group.kept}
            self.recorder.event("worker_started", rank=worker.rank, t_s=worker.started_s, data=about)
        self._flush()

    def _wait(self, selector: selectors.BaseSelector, files: FolderWatch, signals: Signals) -> None:
        """Sleep until something happens, and take it in."""
        for key, _ in selector.select(self._timeout_s()):
            if isinstance(key.data, Worker):
                selector.unregister(key.fd)
                self._reap(key.data)
            elif callable(key.data):
                if not key.data():
                    selector.unregister(key.fd)
            elif key.data == "signal":
                self._told(signals.read())
            else:
                selector.unregister(files.fd)
                self._files_at = time.monotonic() + _COALESCE_S
        now = time.monotonic()
        if self._files_at is not None and now >= self._files_at:
            self._files_at = None
            files.drain()
            selector.register(files.fd, selectors.EVENT_READ, "files")
            self._read_files()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.group.kill()
        if self._hangs.look_at is not None and now >= self._hangs.look_at:
            self._look_for_hang()
        if self._flush_at is not None and now >= self._flush_at:
            self._flush()

    def _look_for_hang(self) -> None:
        """Ask whether the group moves; if not, note what it is stuck in and end who holds it up."""
        self._read_files()
        hang = self._hangs.look()
        if hang is None or self._hang is not None or self._leaving:
            return
        self._hang = hang
        self._hangs.stop()
        about = msgspec.to_builtins(hang) | self._hangs.evidence(self.group.attempt)
        self.recorder.event("hang", rank=hang.ranks[0], data=about)
        for worker in self.group:
            if worker.rank in hang.ranks and worker.running:
                worker.end_hung()

    def _timeout_s(self) -> float | None:
        """How long nothing needs to be done if nothing happens."""
        alarms = (self._files_at, self._kill_at, self._flush_at, self._resume_at, self._hangs.look_at)
        due = [t for t in alarms if t is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read_files(self) -> None:
        """What workers and people wrote: journals, and a wish for another number of workers."""
        for tail in self._tails:
            for entry in tail.read():
                self.recorder.journal(tail.rank, entry)
                self._hangs.journal(tail.rank, entry)
        wanted = self.job.read_wanted() or self._wanted
        if wanted != self._wanted:
            self.recorder.event("resize", data={"from": self._wanted, "to": wanted})
            self._wanted = wanted
        if self._flush_at is None and self.recorder.dirty:
            self._flush_at = time.monotonic() + _FLUSH_S
        if self.on_update:
            self.on_update(self.recorder.progress)

    def _reap(self, worker: Worker) -> None:
        code = worker.reap()
        data = {"exit_code": code, "signal": -code if code < 0 else None, "told": worker.told}
        self.recorder.event("worker_exit", rank=worker.rank, t_s=worker.ended_s, data=data)

    def _told(self, signums: list[int]) -> None:
        """A signal to the agent: ask the workers to end, or at the second one end them."""
        for signum in signums:
            if self._asked:
                self._kill_at = time.monotonic()
            else:
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
            resized=self._wanted != self.group.size,
        )
        return self._recover() if decision.step is Step.RECOVER else decision

    def _recover(self) -> Decision:
        """Name the first failure, ask the policy what to do about it, and let its delay pass."""
        if self._resume_at is None:
            self._judge()
        if self._resume_at is not None and time.monotonic() < self._resume_at:
            return Decision(Step.WAIT)
        return self._next

    def _judge(self) -> None:
        found = self.group.first_failure()
        assert found is not None, "decide() said that a worker failed"
        self.failure, seen_s = found
        if self._hang is not None:
            self.failure = hung(self.failure, self._hang)
        self.recorder.failure(self.failure, seen_s)
        committed = self.recorder.progress.step or 0
        incident = Incident(
            symptom=read_cause(self.failure),
            t_s=seen_s,
            committed=committed,
            step=committed + 1,
            rank=self.failure.rank,
        )
        fleet = Fleet(workers=self.group.size, on_host=self.group.size)
        rules = Rules(max_restarts=self.job.max_restarts)
        verdict = recover(rules, self._incidents, incident, time.time(), fleet)
        self._incidents.append(incident)
        self.recorder.event("verdict", rank=self.failure.rank, data=verdict.event())
        self._next = follow(verdict)
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
        self.group.close()
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
