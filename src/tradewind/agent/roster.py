"""The hosts that a run has now: the leader's own, and those whose agents have called it."""

import contextlib
import secrets
import selectors
import socket
import time

import msgspec

from tradewind.agent import wire
from tradewind.agent.host import Host, LocalHost
from tradewind.agent.lease import LONGEST_S, Lease
from tradewind.agent.remote import Ears, RemoteHost
from tradewind.agent.wire import Link, LinkLost

_BEAT_S = 0.25
"""How often it says that it is here."""
_LATE_S = 0.05


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """This host's place among a run's hosts."""

    index: int = 0
    address: str = "127.0.0.1"
    door: socket.socket | None = None
    """Where agents of other hosts call; None for a run on this host alone."""
    token: str = ""


class Caller:
    """A connection that has not yet shown whose it is."""

    def __init__(self, connection: socket.socket, roster: "Roster") -> None:
        self.link = Link(connection, wire.FromMember)
        self.nonce = secrets.token_hex(16)
        self._roster = roster
        self.link.say(wire.Challenge(self.nonce))

    def hear(self) -> None:
        """Take in its hello: it becomes a host, or is turned away."""
        try:
            for message in self.link.hear()[:1]:
                self._roster.admit(self, message)
        except LinkLost:
            self._roster.turn_away(self)


class Roster:
    """This host, and others as they come and go. Without a door it stays alone."""

    def __init__(self, run: str, local: LocalHost, seat: Seat, ears: Ears) -> None:
        self.local = local
        self.others: dict[int, RemoteHost] = {}
        self.attempt = -1
        """The newest that a host which called has taken part in."""
        self.look_at: float | None = time.monotonic() + _BEAT_S if seat.door else None
        """When to look next for hosts that have fallen silent, on the monotonic clock."""
        self._run, self._token, self._door, self._ears = run, seat.token, seat.door, ears
        self._callers: set[Caller] = set()
        self._leases: dict[int, Lease] = {}
        self._last_heard: dict[int, float] = {}
        """Of hosts that were given up."""
        self._selector: selectors.BaseSelector | None = None

    @property
    def hosts(self) -> list[Host]:
        """Those that can be used, in their order."""
        everyone: list[Host] = [self.local, *self.others.values()]
        return sorted(everyone, key=lambda host: host.index)

    @property
    def capacity(self) -> int | None:
        """Workers that all hosts together may have; None for no bound."""
        if self.local.capacity is None:
            return None
        return sum(host.capacity or 0 for host in self.hosts)

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Have this selector wake its owner when another host says something or calls."""
        self._selector = selector
        if self._door is not None:
            selector.register(self._door, selectors.EVENT_READ, self._answer)
        for caller in self._callers:
            selector.register(caller.link, selectors.EVENT_READ, caller.hear)
        for host in self.others.values():
            selector.register(host.link, selectors.EVENT_READ, host.hear)

    def _answer(self) -> None:
        """Let in whoever calls, as far as the doorstep."""
        assert self._door is not None
        with contextlib.suppress(OSError, LinkLost):  # It has left again.
            connection, _ = self._door.accept()
            caller = Caller(connection, self)
            self._callers.add(caller)
            if self._selector is not None:
                self._selector.register(caller.link, selectors.EVENT_READ, caller.hear)

    def admit(self, caller: Caller, hello: object) -> None:
        """Make a host of a caller that knows the run's token; it takes the place of what it was before.

        Raises LinkLost for anyone else.
        """
        if not isinstance(hello, wire.Hello) or hello.run != self._run or hello.host == self.local.index:
            raise LinkLost("not a host of this run")
        if not wire.is_proof(self._token, hello, caller.nonce):
            raise LinkLost("does not know the token of this run")
        self._leave(caller)
        before = self.others.get(hello.host)
        if before is not None:
            before.lose("its agent started again")
        caller.link.say(wire.Welcome(wire.prove(self._token, "leader", hello.nonce)))
        host = RemoteHost(caller.link, hello, self._lease_of(hello), self._ears, self._forget)
        self.others[host.index] = host
        host.link.beat(_BEAT_S, lambda: wire.Beat(time.time()))
        self.attempt = max(self.attempt, hello.attempt)
        if self._selector is not None:
            self._selector.register(host.link, selectors.EVENT_READ, host.hear)
        self._ears.host_came(host)

    def _lease_of(self, hello: wire.Hello) -> Lease:
        """What was learnt of this host before, this time included."""
        now, lease = time.monotonic(), self._leases.setdefault(hello.host, Lease(self.local.job.lease_s))
        last_heard = self._last_heard.pop(hello.host, None)
        took_part = hello.attempt >= 0  # The same agent as before, which has not ended in between.
        if took_part and last_heard is not None and now - last_heard < LONGEST_S:
            lease.was_too_short()
        lease.begin(now)
        return lease

    def turn_away(self, caller: Caller) -> None:
        """End the connection of somebody who does not belong here."""
        self._leave(caller)
        caller.link.close()

    def _leave(self, caller: Caller) -> None:
        self._callers.discard(caller)
        self._unwatch(caller.link)

    def _forget(self, host: RemoteHost) -> None:
        if self.others.get(host.index) is host:
            del self.others[host.index]
            self._last_heard[host.index] = host.link.heard_at
        self._unwatch(host.link)

    def _unwatch(self, link: Link) -> None:
        if self._selector is not None and link.fileno() in self._selector.get_map():
            self._selector.unregister(link)

    def look(self) -> None:
        """Give up hosts, and callers, that have been silent for too long."""
        assert self.look_at is not None
        now = time.monotonic()
        late_s = now - self.look_at
        for host in list(self.others.values()):
            if late_s > _LATE_S:  # This process did not get to listen meanwhile: that is not their silence.
                host.link.heard_at = min(now, host.link.heard_at + late_s)
            host.look(now)
        for caller in [c for c in self._callers if now - c.link.heard_at > LONGEST_S]:
            self.turn_away(caller)
        ends = [host.link.heard_at + host.lease.seconds for host in self.others.values()]
        self.look_at = max(now + _LATE_S, min([now + _BEAT_S, *ends]))

    def close(self, ended: tuple[int, str] | None) -> None:
        """Hang up; `ended`: the exit code and the reason, when the run is over here."""
        for host in list(self.others.values()):
            if ended is not None:
                host.say(wire.Finish(*ended))
            if not host.lost:
                host.link.close()
        for caller in self._callers:
            caller.link.close()
        if self._door is not None:
            self._door.close()
