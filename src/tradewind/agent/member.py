"""The agent of a host that follows another: it starts, ends and watches workers as the leader says.

When the leader is gone its workers are taken out of their group. They keep their process and their state in
memory, and wait with this agent for the leader, or the one in its place, to answer again.
"""

import secrets
import selectors
import shutil
import signal
import socket
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from tradewind.agent import wire
from tradewind.agent.hangs import evidence
from tradewind.agent.host import LocalHost
from tradewind.agent.job import Job
from tradewind.agent.journal import JournalTail
from tradewind.agent.lease import LONGEST_S
from tradewind.agent.watch import FolderWatch, Signals
from tradewind.agent.wire import Hello, Link, LinkLost
from tradewind.agent.worker import LocalWorker
from tradewind.errors import TradewindError
from tradewind.names import ExitCode

_COALESCE_S = 0.02
"""After a journal was written, further writes are gathered this long."""
_RETRY_S = 0.2
_BEAT_S = 0.05
"""How often it says that it is there."""


class Member:
    """One host's agent while the run lasts."""

    def __init__(self, job: Job, host: LocalHost, leader: tuple[str, int], token: str) -> None:
        self.job = job
        self.host = host
        self.leader = leader
        self._token = token
        self._link: Link | None = None
        self._selector = selectors.DefaultSelector()
        self._files = FolderWatch()
        self._workers: dict[int, LocalWorker] = {}
        """By serial."""
        self._tails: dict[int, JournalTail] = {}
        self._attempt = -1
        self._files_at: float | None = None
        self._asked: int | None = None
        self._exit_code: int | None = None

    def serve(self, signals: Signals) -> int:
        """Follow the leader until it says that the run is over; the exit code that it says.

        Raises TradewindError when no leader answers for as long as the run waits for hosts.
        """
        self._selector.register(signals.fd, selectors.EVENT_READ, lambda: self._told(signals.read()))
        self._selector.register(self._files.fd, selectors.EVENT_READ, self._written)
        while self._exit_code is None:
            self._call()
            try:
                while self._link is not None and self._exit_code is None:
                    self._wait()
            except LinkLost as error:
                self._hear_the_end()
                if self._exit_code is None:
                    print(f"tradewind: lost the leader: {error}", flush=True)
                    self._hang_up()
                    self._scatter()
        return self._exit_code

    def close(self) -> None:
        """Leave nothing behind."""
        self._hang_up()
        self.host.release(())
        self._selector.close()
        with self._files:
            shutil.rmtree(self.job.memory_dir, ignore_errors=True)

    def _call(self) -> None:
        """Reach the leader, and say who is here."""
        until = time.monotonic() + self.job.host_wait_s
        while self._exit_code is None:
            try:
                connection = socket.create_connection(self.leader, timeout=LONGEST_S)
                self._greet(Link(connection, wire.FromLeader))
                return
            except (OSError, LinkLost) as error:
                if time.monotonic() > until:
                    raise TradewindError(
                        f"no leader answers at {self.leader[0]}:{self.leader[1]} ({error}); is host 0 up?"
                    ) from error
            self._wait_once(time.monotonic() + _RETRY_S)

    def _greet(self, link: Link) -> None:
        """Prove who this is to a leader that proves who it is."""
        try:
            challenge = link.next()
            hello = Hello(
                run=self.job.run,
                host=self.host.index,
                address=self.host.address,
                capacity=self.host.capacity or 1,
                ports=self.host.ports(),
                nonce=secrets.token_hex(16),
                proof="",
                parked={local: self._serial(worker) for local, worker in self.host.parked.items()},
                attempt=self._attempt,
            )
            proof = wire.prove(self._token, "member", challenge.nonce, wire.claims(hello))
            link.say(msgspec.structs.replace(hello, proof=proof))
            if link.next().proof != wire.prove(self._token, "leader", hello.nonce):
                raise LinkLost("who answers does not know the token of this run")
        except (AttributeError, LinkLost) as error:
            link.close()
            raise LinkLost(f"no welcome: {error}") from error
        self._link = link
        link.beat(_BEAT_S, wire.Here)
        self._selector.register(link, selectors.EVENT_READ, lambda: self._take_all(link.hear()))
        self._take_all(link.whole())
        if self._asked is not None:
            link.say(wire.Asked(self._asked))

    def _hear_the_end(self) -> None:
        """Take in that the run is over, if that was said: who is writing to a leader that has closed has not read it yet."""
        for message in self._link.last_words() if self._link is not None else ():
            if isinstance(message, wire.Finish):
                self._take(message)

    def _hang_up(self) -> None:
        if self._link is not None:
            self._selector.unregister(self._link)
            self._link.close()
            self._link = None

    def _wait(self) -> None:
        """Sleep until something happens, and take it in; LinkLost when the leader is silent for too long."""
        assert self._link is not None
        self._wait_once(self._link.heard_at + LONGEST_S)
        if self._is_silent():
            self._wait_once(0.0)  # What came while a worker was started has not been read yet.
            if self._is_silent():
                raise LinkLost(f"silent for {LONGEST_S:g} s")

    def _is_silent(self) -> bool:
        return self._link is not None and time.monotonic() > self._link.heard_at + LONGEST_S

    def _wait_once(self, until: float) -> None:
        alarm = until if self._files_at is None else min(until, self._files_at)
        for key, _ in self._selector.select(max(0.0, alarm - time.monotonic())):
            # What came before in this round may have let go of this one.
            if key.fd in self._selector.get_map() and key.data() is False:
                self._selector.unregister(key.fd)
        if self._files_at is not None and time.monotonic() >= self._files_at:
            self._read_journals()

    def _told(self, signums: list[int]) -> None:
        """A signal to this agent: the leader decides what it means, unless it is repeated or there is none."""
        for signum in signums:
            if self._link is None or self._asked is not None:
                self._exit_code = ExitCode.REQUEUE if signum == signal.SIGTERM else ExitCode.INTERRUPTED
            else:
                self._link.say(wire.Asked(signum))
            self._asked = signum

    def _take_all(self, messages: Iterable[Any]) -> None:
        for message in messages:
            self._take(message)

    def _take(self, message: Any) -> None:
        match message:
            case wire.Beat():
                self._echo(message.t)
            case wire.Start() | wire.Enter():
                self._start(message)
            case wire.Send():
                self._send(message)
            case wire.Break():
                if (worker := self._workers.get(message.serial)) is not None and worker.running:
                    worker.break_out()
            case wire.Release():
                self._release(message.keep)
            case wire.Finish():
                print(f"tradewind: the run is over here: {message.reason}", flush=True)
                self._exit_code = message.exit_code
            case _:
                raise LinkLost(f"said {type(message).__name__} out of turn")

    def _say(self, message: wire.Message) -> None:
        if self._link is not None:
            self._link.say(message)

    def _echo(self, t: float) -> None:
        looks = [(self._serial(worker), worker.sign()) for worker in self._at_work()]
        signs = {serial: (sign.state, sign.cpu_s, sign.phase) for serial, sign in looks if sign is not None}
        self._say(wire.Echo(t=t, now=time.time(), ports=self.host.ports(), signs=signs))

    def _start(self, message: wire.Start | wire.Enter) -> None:
        place = message.place
        if place.attempt != self._attempt:
            self._tails.clear()
            self._attempt = place.attempt
        self._tails[place.rank] = JournalTail(self.job.journal(place.attempt, place.rank), place.rank)
        if isinstance(message, wire.Start):
            worker = self._workers[message.serial] = self.host.start(place)
            self._watch(message.serial, worker)
            self._say(wire.Started(message.serial, worker.pid))
        else:
            self.host.enter(place)
        self._files.add(self.job.journal(place.attempt, place.rank).parent)
        self._read_journals()

    def _watch(self, serial: int, worker: LocalWorker) -> None:
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda: self._ended(serial, worker))
        self._selector.register(worker.control, selectors.EVENT_READ, lambda: self._said(serial, worker))

    def _said(self, serial: int, worker: LocalWorker) -> bool:
        parked, goes_on = worker.parked, worker.hear()
        if worker.parked and not parked:
            self._say(wire.Parked(serial))
        return goes_on

    def _ended(self, serial: int, worker: LocalWorker) -> bool:
        """Tell the leader of an exit, after all that the worker wrote."""
        worker.reap()
        self._read_journals()
        said = worker.report()
        self._say(
            wire.Exited(
                serial=serial,
                exit_code=said.exit_code,
                t=worker.ended_s or time.time(),
                text=said.text,
                exception=said.exception,
                raised=said.t_s,
            )
        )
        return False

    def _send(self, message: wire.Send) -> None:
        worker = self._workers.get(message.serial)
        if message.hung:
            found = evidence(self.job, self._at_work())
            self._say(wire.Found(msgspec.to_builtins(found, str_keys=True)))
        if worker is not None and worker.running:
            worker.end_hung() if message.hung else worker.send(message.signum)

    def _release(self, keep: tuple[int, ...]) -> None:
        for serial in [serial for serial in self._workers if serial not in keep]:
            worker = self._workers.pop(serial)
            for fd in (worker.pidfd, worker.control.fileno()):
                if fd in self._selector.get_map():
                    self._selector.unregister(fd)
        kept = self._workers.values()
        self.host.release([local for local, worker in self.host.workers.items() if worker in kept])

    def _serial(self, worker: LocalWorker) -> int:
        return next(serial for serial, one in self._workers.items() if one is worker)

    def _at_work(self) -> list[LocalWorker]:
        return [worker for worker in self._workers.values() if worker.running and not worker.parked]

    def _written(self) -> None:
        self._files.drain()
        if self._files_at is None:
            self._files_at = time.monotonic() + _COALESCE_S

    def _read_journals(self) -> None:
        self._files_at = None
        for rank, tail in self._tails.items():
            if entries := tail.read():
                self._say(wire.Entries(self._attempt, rank, entries))

    def _scatter(self) -> None:
        """Without a leader: take all workers out of their group, and end those that do not leave it."""
        for worker in self._at_work():
            worker.break_out()
        until = time.monotonic() + self.job.survivor_s
        while self._at_work() and time.monotonic() < until:
            self._wait_once(until)
        for worker in self._at_work():
            worker.send(signal.SIGKILL)
