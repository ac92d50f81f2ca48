"""The workers of one attempt: started or taken over, told to leave, and what became of each."""

import os
import signal
import time
from collections.abc import Iterable, Iterator

from tradewind.agent.job import Job, worker_environment
from tradewind.agent.policy import Ended
from tradewind.agent.standby import Standby
from tradewind.agent.worker import Worker
from tradewind.diagnose.first_failure import Failure, first_failure, read_exit
from tradewind.names import ExitCode


class Group:
    """One generation of a run's workers; the next one takes over those that have left this one."""

    def __init__(self, job: Job, workers: int, attempt: int = 0) -> None:
        self.job = job
        self.size = workers
        self.attempt = attempt
        self.kept: list[int] = []
        """Ranks that were taken over, with their process, from the group before."""
        self._workers: list[Worker] = []

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    def start(self, standby: Standby, restarts: int, port: int, before: "Group | None" = None) -> None:
        """Place every rank: on the survivor of that rank, else on a new process from the standby."""
        parked = {worker.rank: worker for worker in before or () if worker.parked}
        self.kept = [rank for rank in sorted(parked) if rank < self.size]
        for worker in before or ():
            if worker.rank not in self.kept:
                worker.discard()
        for rank in range(self.size):
            env = worker_environment(
                self.job,
                attempt=self.attempt,
                restarts=restarts,
                rank=rank,
                workers=self.size,
                port=port,
                base=os.environ,
            )
            log = self.job.log(self.attempt, rank)
            if rank in self.kept:
                parked[rank].enter(env, log)
                self._workers.append(parked[rank])
            else:
                self._workers.append(standby.fork(rank, self.job.command(), env, self.job.workdir, log))

    @property
    def ended(self) -> list[Ended]:
        """Those that have ended, the first failure first."""
        gone = [worker for worker in self._workers if not worker.running]
        gone.sort(key=lambda w: (w.told is not None, w.ended_s, w.rank))
        return [Ended(rank=w.rank, exit_code=w.exit_code or 0, told=w.told is not None) for w in gone]

    @property
    def parked(self) -> int:
        """How many have left the group and wait for the next one."""
        return sum(worker.parked for worker in self._workers)

    @property
    def is_over(self) -> bool:
        """Whether nobody is at work any more."""
        return all(worker.parked or not worker.running for worker in self._workers)

    def terminate(self) -> None:
        """Ask all to commit their state and end."""
        for worker in self._workers:
            if worker.running:
                worker.send(signal.SIGTERM)

    def break_up(self) -> None:
        """Ask all to leave the group at once: a peer is gone, or the group changes."""
        for worker in self._workers:
            if worker.running and not worker.parked:
                worker.break_out()

    def kill(self, *, parked: bool = False) -> None:
        """SIGKILL to all who are still at work, with their children; `parked`: and to those who wait."""
        for worker in self._workers:
            if worker.running and (parked or not worker.parked):
                worker.send(signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing behind."""
        for worker in self._workers:
            worker.discard()

    def first_failure(self) -> tuple[Failure, float] | None:
        """Who failed first and why, with when it was seen to end; None when nobody failed."""
        gone = [worker for worker in self._workers if not worker.running]
        exits = [
            read_exit(
                w.rank,
                w.exit_code or 0,
                w.ended_s or 0.0,
                told=w.told is not None,
                log=self.job.log(self.attempt, w.rank),
                error_file=self.job.error_file(self.attempt, w.rank),
            )
            for w in gone
        ]
        if not any(not e.told and e.exit_code not in (ExitCode.OK, ExitCode.REQUEUE) for e in exits):
            return None
        failure = first_failure(exits)
        return None if failure is None else (failure, seen_s(gone, failure.rank))


def seen_s(workers: Iterable[Worker], rank: int) -> float:
    """When the agent saw this rank end."""
    return next((w.ended_s for w in workers if w.rank == rank and w.ended_s), time.time())
