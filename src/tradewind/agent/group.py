"""The workers of one attempt: started or taken over, told to leave, and what became of each."""

import signal
import time
from collections.abc import Iterable, Iterator, Sequence

from tradewind.agent.host import Host
from tradewind.agent.place import lay_out, spread
from tradewind.agent.policy import Ended
from tradewind.agent.worker import Worker
from tradewind.diagnose.first_failure import Failure, first_failure
from tradewind.names import ExitCode


class Group:
    """One generation of a run's workers; the next one takes over those that have left this one."""

    def __init__(self, workers: int, attempt: int = 0) -> None:
        self.size = workers
        self.attempt = attempt
        self.kept: list[int] = []
        """Ranks that were taken over, with their process, from the group before."""
        self.port = 0
        """Where its workers meet."""
        self.hosts: dict[int, Host] = {}
        """Where each rank runs."""
        self._workers: list[Worker] = []

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    def start(self, hosts: Sequence[Host], restarts: int) -> None:
        """Fill the hosts in order: places of parked workers with these, the others with new ones."""
        counts = spread([host.capacity for host in hosts], self.size)
        used = [(host, host.ports()) for host, count in zip(hosts, counts, strict=True) if count]
        address, self.port = used[0][0].address, used[0][1][0]
        peers = tuple(f"{host.address}:{ports[1]}" for host, ports in used) if len(used) > 1 else ()
        places = lay_out(
            counts, attempt=self.attempt, restarts=restarts, address=address, port=self.port, peers=peers
        )
        parked = [range(count) & host.parked.keys() for host, count in zip(hosts, counts, strict=True)]
        for host, keep in zip(hosts, parked, strict=True):
            host.release(keep)
        placed = [
            (place, host, place.local_rank in keep)
            for host, keep, own in zip(hosts, parked, places, strict=True)
            for place in own
        ]
        # Survivors have the longer way back: they are told before anyone is forked.
        for place, host, kept in sorted(placed, key=lambda one: not one[2]):
            self.hosts[place.rank] = host
            self._workers.append(host.enter(place) if kept else host.start(place))
        self._workers.sort(key=lambda worker: worker.rank)
        self.kept = [place.rank for place, _, kept in placed if kept]

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

    def first_failure(self) -> tuple[Failure, float] | None:
        """Who failed first and why, with when it was seen to end; None when nobody failed."""
        gone = [worker for worker in self._workers if not worker.running]
        exits = [worker.report() for worker in gone]
        if not any(not e.told and e.exit_code not in (ExitCode.OK, ExitCode.REQUEUE) for e in exits):
            return None
        failure = first_failure(exits)
        return None if failure is None else (failure, seen_s(gone, failure.rank))


def seen_s(workers: Iterable[Worker], rank: int) -> float:
    """When the agent saw this rank end."""
    return next((w.ended_s for w in workers if w.rank == rank and w.ended_s), time.time())
