"""Another host of the run, and the workers on it, as its leader sees them: through what its agent says."""

import itertools
import signal
import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

from tradewind.agent import wire
from tradewind.agent.lease import Lease
from tradewind.agent.place import Place
from tradewind.agent.wire import Hello, Link, LinkLost, Message
from tradewind.agent.worker import Sign, Worker
from tradewind.diagnose.first_failure import RankExit

_serials = itertools.count(time.time_ns())
"""Never the same on two leaders of a run: one comes after the other."""


class Ears(Protocol):
    """Who is told what happens on other hosts."""

    def worker_ended(self, worker: Worker) -> None:
        """A worker was seen to end."""

    def journal_entry(self, attempt: int, rank: int, entry: dict[str, Any]) -> None:
        """A rank wrote into its journal; times are on this host's clock."""

    def host_came(self, host: "RemoteHost") -> None:
        """A host may be used from now on."""

    def host_lost(self, host: "RemoteHost", why: str) -> None:
        """A host is gone, and its workers with it."""

    def asked(self, signum: int) -> None:
        """Somebody wants a host, and so the run, to end."""

    def found(self, host: "RemoteHost", evidence: dict[str, Any]) -> None:
        """What workers of a host were in the middle of when one hung."""


class RemoteWorker(Worker):
    """A worker on another host. `pid` is 0 until that host has said it."""

    def __init__(self, place: Place, host: "RemoteHost", serial: int) -> None:
        super().__init__(place, 0)
        self.host = host
        self.serial = serial
        """The number by which both hosts know it."""
        self.last_words: RankExit | None = None

    def end_hung(self) -> None:
        self.host.say(wire.Send(self.serial, signal.SIGKILL, hung=True))

    def _send(self, signum: int) -> None:
        self.host.say(wire.Send(self.serial, signum))

    def _break_out(self) -> None:
        self.host.say(wire.Break(self.serial))

    def sign(self) -> Sign | None:
        return self.host.signs.get(self.serial)

    def report(self) -> RankExit:
        assert self.last_words is not None, "asked of workers that have ended"
        return self.last_words

    def ended(self, said: RankExit) -> None:
        """Note its end."""
        self.ended_s, self.exit_code, self.parked = said.t_s, said.exit_code, False
        self.last_words = said


class Clock:
    """How another host's clock differs from this one's, by the exchange that took the shortest."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._best_s = float("inf")

    def learn(self, sent_s: float, theirs_s: float, received_s: float) -> None:
        """Take in one exchange; as in NTP, theirs is taken to be of half-way between ours."""
        took_s = received_s - sent_s
        if 0 <= took_s <= self._best_s:
            self._best_s, self._ahead_s = took_s, theirs_s - (sent_s + received_s) / 2
        self._best_s *= 1.001  # Clocks drift: an old exchange is worth less.

    def ours(self, theirs_s: float) -> float:
        """Their time on our clock."""
        return theirs_s - self._ahead_s


class RemoteHost:
    """A host whose agent follows this one; everything it is asked is asked over its link."""

    def __init__(
        self, link: Link, hello: Hello, lease: Lease, ears: Ears, forget: Callable[["RemoteHost"], None]
    ) -> None:
        """`forget` is called first when the host is lost, while its link is still open."""
        self.link = link
        self.lease = lease
        self.index = hello.host
        self.address = hello.address
        self.capacity: int | None = hello.capacity
        self.workers: dict[int, RemoteWorker] = {}
        """By local rank."""
        self.signs: dict[int, Sign] = {}
        self.lost = False
        self._ports = hello.ports
        self._ears = ears
        self._forget = forget
        self._clock = Clock()
        for local, serial in hello.parked.items():
            self.workers[local] = self._parked_before(local, serial, hello.attempt)

    def _parked_before(self, local: int, serial: int, attempt: int) -> RemoteWorker:
        """A worker that a leader before this one had."""
        place = Place(
            attempt=attempt,
            restarts=0,
            rank=local,
            world=1,
            local_rank=local,
            local_world=1,
            port=self._ports[0],
        )
        worker = RemoteWorker(place, self, serial)
        worker.parked = True
        return worker

    @property
    def name(self) -> str:
        return f"host {self.index}"

    @property
    def parked(self) -> dict[int, RemoteWorker]:
        return {local: worker for local, worker in self.workers.items() if worker.parked}

    def start(self, place: Place) -> RemoteWorker:
        worker = RemoteWorker(place, self, next(_serials))
        self.workers[place.local_rank] = worker
        self.say(wire.Start(worker.serial, place))
        return worker

    def enter(self, place: Place) -> RemoteWorker:
        worker = self.workers[place.local_rank]
        worker.entered(place)
        self.say(wire.Enter(worker.serial, place))
        return worker

    def release(self, keep: Collection[int]) -> None:
        self.workers = {local: worker for local, worker in self.workers.items() if local in keep}
        self.say(wire.Release(tuple(worker.serial for worker in self.workers.values())))

    def ports(self) -> tuple[int, int]:
        return self._ports

    def say(self, message: Message) -> None:
        """Tell its agent; a host that cannot be told is lost."""
        if self.lost:
            return
        try:
            self.link.say(message)
        except LinkLost as error:
            self.lose(str(error))

    def hear(self) -> None:
        """Take in what its agent says."""
        if self.lost:
            return
        before = self.link.heard_at
        try:
            for message in self.link.hear():
                self._take(message)
            self.lease.heard(self.link.heard_at - before, self.link.heard_at)
        except LinkLost as error:
            self.lose(str(error))

    def _take(self, message: Any) -> None:
        match message:
            case wire.Here():
                return
            case wire.Echo():
                self._clock.learn(message.t, message.now, time.time())
                self._ports = message.ports
                self.signs = {serial: Sign(*sign) for serial, sign in message.signs.items()}
            case wire.Entries():
                for entry in message.entries:
                    entry["t"] = self._clock.ours(float(entry["t"]))
                    self._ears.journal_entry(message.attempt, message.rank, entry)
            case wire.Started():
                for worker in self._called(message.serial):
                    worker.pid = message.pid
            case wire.Parked():
                for worker in self._called(message.serial):
                    worker.parked = True
            case wire.Exited():
                self._exited(message)
            case wire.Found():
                self._ears.found(self, message.evidence)
            case wire.Asked():
                self._ears.asked(message.signum)
            case _:
                raise LinkLost(f"said {type(message).__name__} out of turn")

    def _called(self, serial: int) -> list[RemoteWorker]:
        """The running worker of this number, if it is still one of the host's."""
        return [w for w in self.workers.values() if w.serial == serial and w.running]

    def _exited(self, message: wire.Exited) -> None:
        for worker in self._called(message.serial):
            worker.ended(
                RankExit(
                    rank=worker.rank,
                    exit_code=message.exit_code,
                    t_s=self._clock.ours(message.raised),
                    told=worker.told is not None,
                    text=message.text,
                    exception=message.exception,
                )
            )
            worker.ended_s = self._clock.ours(message.t)
            self._ears.worker_ended(worker)

    def look(self, now: float) -> None:
        """Give it up if it has been silent for longer than its lease."""
        if now - self.link.heard_at > self.lease.seconds and self.link.has_heard():
            self.hear()  # It was this process that did not listen.
        silent_s = now - self.link.heard_at
        if silent_s > self.lease.seconds:
            self.lose(f"it was silent for {silent_s:.2f} s, and its lease is {self.lease.seconds:.2f} s")

    def lose(self, why: str) -> None:
        """Give the host up: what ran on it counts as ended."""
        if self.lost:
            return
        self.lost = True
        self._forget(self)
        self.link.close()
        for worker in self.workers.values():
            if worker.running:
                worker.ended(self._gone(worker, why))
                self._ears.worker_ended(worker)
        self._ears.host_lost(self, why)

    def _gone(self, worker: RemoteWorker, why: str) -> RankExit:
        return RankExit(
            rank=worker.rank,
            exit_code=-signal.SIGKILL,
            t_s=time.time(),
            told=worker.told is not None or worker.parked,
            lost=True,
            text=why,
            exception=f"{self.name} ({self.address}) was lost: {why}",
        )
