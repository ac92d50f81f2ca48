"""Keep a run's workers alive: start them, notice an exit at once, replace it, let survivors re-enter in place."""

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tradewind import names
from tradewind.agent.job import Job, free_port, shared_environment, worker_environment
from tradewind.agent.journal import JournalTail, make_folder
from tradewind.agent.policy import Decision, Ended, Step, decide
from tradewind.agent.recorder import Progress, Recorder
from tradewind.agent.standby import TORCH, Standby
from tradewind.agent.watch import FolderWatch, Signals
from tradewind.agent.worker import Worker
from tradewind.diagnose.first_failure import Failure, first_failure, read_exit

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


class Supervisor:
    """The loop over one run's attempts; one instance per run."""

    def __init__(self, job: Job, store: "Store", standby: Standby, on_update: OnUpdate | None) -> None:
        self.job = job
        self.standby = standby
        self.recorder = Recorder(job.run, store)
        self.on_update = on_update
        self.workers: list[Worker] = []
        self.failure: Failure | None = None
        self._tails: list[JournalTail] = []
        self._asked: str | None = None
        self._draining = False
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
        """Start the group and watch it until all of it has ended."""
        with selectors.DefaultSelector() as selector, FolderWatch() as files:
            selector.register(signals.fd, selectors.EVENT_READ, "signal")
            selector.register(files.fd, selectors.EVENT_READ, "files")
            self._start(attempt, restarts, files)
            for worker in self.workers:
                selector.register(worker.pidfd, selectors.EVENT_READ, worker)
                selector.register(worker.control.fileno(), selectors.EVENT_READ, worker.hear)
            while True:
                self._wait(selector, files, signals)
                decision = self._decide(restarts)
                if decision.step in (Step.DRAIN, Step.BREAK):
                    self._end_others(decision.step)
                elif decision.step is not Step.WAIT:
                    self._conclude(decision)
                    return decision

    def _start(self, attempt: int, restarts: int, files: FolderWatch) -> None:
        """Start every rank of one attempt."""
        job, port, started_s = self.job, free_port(), time.time()
        make_folder(job.log(attempt, 0))
        make_folder(job.journal(attempt, 0))
        files.add(job.journal(attempt, 0).parent)
        if self.on_update:
            files.add(job.log(attempt, 0).parent)
        self._tails = [JournalTail(job.journal(attempt, rank), rank) for rank in range(job.workers)]
        kept = {worker.rank: worker for worker in self.workers if worker.parked}
        for worker in self.workers:
            if not worker.parked:
                worker.close()
        self._draining, self._kill_at, self.workers = False, None, []
        for rank in range(job.workers):
            env = worker_environment(
                job, attempt=attempt, restarts=restarts, rank=rank, port=port, base=os.environ
            )
            self.workers.append(self._place(kept.get(rank), rank, env, job.log(attempt, rank)))
        self.recorder.attempt_started(
            attempt,
            started_s,
            {"workers": job.workers, "port": port, "restarts": restarts, "kept": sorted(kept)},
        )
        for worker in self.workers:
            data = {"pid": worker.pid, "log": str(job.log(attempt, worker.rank)), "kept": worker.rank in kept}
            self.recorder.event("worker_started", rank=worker.rank, t_s=worker.started_s, data=data)
        self._attempt_index = attempt
        self._flush()

    def _place(self, kept: Worker | None, rank: int, env: dict[str, str], log: Path) -> Worker:
        """A worker for this rank: the one that survived, or a new one from the standby."""
        if kept is None:
            return self.standby.fork(rank, self.job.command(), env, self.job.workdir, log)
        kept.enter(env, log)
        return kept

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
            self._read_journals()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._kill(w for w in self.workers if not w.parked)
        if self._flush_at is not None and now >= self._flush_at:
            self._flush()

    def _timeout_s(self) -> float | None:
        """How long nothing needs to be done if nothing happens."""
        due = [t for t in (self._files_at, self._kill_at, self._flush_at) if t is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read_journals(self) -> None:
        for tail in self._tails:
            for entry in tail.read():
                self.recorder.journal(tail.rank, entry)
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

    def _decide(self, restarts: int) -> Decision:
        ended = sorted(
            (w for w in self.workers if not w.running), key=lambda w: (w.told is not None, w.ended_s, w.rank)
        )
        parked = sum(w.parked for w in self.workers)
        if len(ended) + parked == len(self.workers):
            self._read_journals()
            self._diagnose()
        return decide(
            [Ended(rank=w.rank, exit_code=w.exit_code or 0, told=w.told is not None) for w in ended],
            workers=len(self.workers) - parked,
            restarts_left=self.job.max_restarts - restarts,
            asked=self._asked,
            hopeless=self.failure is not None and self.failure.hopeless,
        )

    def _diagnose(self) -> None:
        """Name the first failure of an attempt whose ranks have all ended."""
        attempt = self._attempt_index
        exits = [
            read_exit(
                w.rank,
                w.exit_code or 0,
                w.ended_s or 0.0,
                told=w.told is not None,
                log=self.job.log(attempt, w.rank),
                error_file=self.job.error_file(attempt, w.rank),
            )
            for w in self.workers
            if not w.running
        ]
        failed = (
            first_failure(exits) if any(not e.told and e.exit_code not in (0, 75) for e in exits) else None
        )
        if failed:
            self.failure = failed
            seen = {w.rank: w.ended_s for w in self.workers}
            self.recorder.failure(failed, seen[failed.rank] or time.time())

    def _end_others(self, step: Step) -> None:
        """Ask those still running, once, to end or to leave the group, with a deadline for SIGKILL."""
        if self._draining:
            return
        self._draining = True
        patience_s = self.job.grace_s if step is Step.DRAIN else self.job.survivor_s
        self._kill_at = time.monotonic() + patience_s
        for worker in self.workers:
            if worker.running and step is Step.BREAK:
                worker.break_out()
            elif worker.running:
                worker.send(signal.SIGTERM)

    def kill_all(self) -> None:
        """SIGKILL to every worker that still runs, with its children."""
        self._kill(self.workers)

    def close(self) -> None:
        """Leave nothing behind, however it ended."""
        self.kill_all()
        for worker in self.workers:
            worker.close()

    @staticmethod
    def _kill(workers: Iterable[Worker]) -> None:
        for worker in workers:
            if worker.running:
                worker.send(signal.SIGKILL)

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
