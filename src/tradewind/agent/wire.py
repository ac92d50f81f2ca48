"""What the agents of a run's hosts say to each other, and how: typed JSON messages over one TCP connection.

A member proves that it knows the run's token before it is listened to, and checks that the leader does, too
(HMAC-SHA256 over a nonce of the other side's). Nothing is encrypted. No message names a command: a member
starts the script of the run that it was itself given, and nothing else.
"""

import contextlib
import hashlib
import hmac
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tradewind.agent.lease import LONGEST_S
from tradewind.agent.place import Place
from tradewind.errors import TradewindError

_MAX_BYTES = 1 << 22
_LENGTH = struct.Struct("!I")


class LinkLost(TradewindError):
    """The other side is gone, or says what it should not."""


class Message(msgspec.Struct, frozen=True, tag_field="say", forbid_unknown_fields=True):
    """One thing said."""


class Challenge(Message, frozen=True, tag="challenge"):
    """Leader, first of all: prove it with this."""

    nonce: str


class Hello(Message, frozen=True, tag="hello"):
    """Member: who it is, and the workers that it still has."""

    run: str
    host: int
    address: str
    capacity: int
    ports: tuple[int, int]
    """Free ones of its own: for rank 0 should that come to it, and for copies of another host's state."""
    nonce: str
    proof: str
    parked: dict[int, int] = {}
    """Workers that wait for a next group: local rank -> serial."""
    attempt: int = -1
    """The last that it took part in."""


class Welcome(Message, frozen=True, tag="welcome"):
    """Leader: it is the right one."""

    proof: str


class Beat(Message, frozen=True, tag="beat"):
    """Leader: still here, and it is so late on its clock."""

    t: float


class Here(Message, frozen=True, tag="here"):
    """Member: still here."""


class Echo(Message, frozen=True, tag="echo"):
    """Member, to a beat: `t` as it was told and its own clock, free ports, and what its workers show."""

    t: float
    now: float
    ports: tuple[int, int]
    signs: dict[int, tuple[str, float, str | None]] = {}
    """By serial."""


class Start(Message, frozen=True, tag="start"):
    """Leader: start a worker, and call it by this number from now on."""

    serial: int
    place: Place


class Enter(Message, frozen=True, tag="enter"):
    """Leader: let this parked worker go on."""

    serial: int
    place: Place


class Send(Message, frozen=True, tag="send"):
    """Leader: a signal for a worker; `hung`: because it hangs, after looking into those that do not."""

    serial: int
    signum: int
    hung: bool = False


class Break(Message, frozen=True, tag="break"):
    """Leader: this worker is to leave its group."""

    serial: int


class Release(Message, frozen=True, tag="release"):
    """Leader: let go of all workers but these serials."""

    keep: tuple[int, ...]


class Finish(Message, frozen=True, tag="finish"):
    """Leader: the run is over here."""

    exit_code: int
    reason: str


class Started(Message, frozen=True, tag="started"):
    """Member: the process of a worker."""

    serial: int
    pid: int


class Parked(Message, frozen=True, tag="parked"):
    """Member: this worker has left its group and waits."""

    serial: int


class Exited(Message, frozen=True, tag="exited"):
    """Member: how a worker ended, with its last words."""

    serial: int
    exit_code: int
    t: float
    text: str
    exception: str
    raised: float


class Entries(Message, frozen=True, tag="entries"):
    """Member: what a rank wrote into its journal."""

    attempt: int
    rank: int
    entries: list[dict[str, Any]]


class Found(Message, frozen=True, tag="found"):
    """Member: what its workers were in the middle of when one hung."""

    evidence: dict[str, Any]


class Asked(Message, frozen=True, tag="asked"):
    """Member: it was told to end."""

    signum: int


FromLeader = Challenge | Welcome | Beat | Start | Enter | Send | Break | Release | Finish
FromMember = Hello | Here | Echo | Started | Parked | Exited | Entries | Found | Asked


class Link:
    """One end of a connection; `kinds` is what the other end may say."""

    def __init__(self, connection: socket.socket, kinds: Any) -> None:
        self.connection = connection
        self.heard_at = time.monotonic()
        """When the other side was last heard."""
        self._decoder = msgspec.json.Decoder(kinds)
        self._received = bytearray()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(LONGEST_S)

    def fileno(self) -> int:
        return self.connection.fileno()

    def say(self, message: Message) -> None:
        """Send a message.

        Raises LinkLost when the other side is gone or has not read for `LONGEST_S`.
        """
        data = msgspec.json.encode(message)
        try:
            with self._lock:
                self.connection.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise LinkLost(f"cannot be written to: {error}") from error

    def beat(self, every_s: float, make: Callable[[], Message]) -> None:
        """Say this so often from now on, whatever else this process is busy with."""
        threading.Thread(target=self._beat, args=(every_s, make), name="tradewind-beat", daemon=True).start()

    def _beat(self, every_s: float, make: Callable[[], Message]) -> None:
        with contextlib.suppress(LinkLost):  # Whoever listens on this link finds that out, too.
            while not self._closing.wait(every_s):
                self.say(make())

    def hear(self) -> list[Any]:
        """What has come since; blocks until something has.

        Raises LinkLost when the other side has closed, or sends what is no message.
        """
        self._receive()
        return list(self.whole())

    def whole(self) -> Iterator[Any]:
        """What has come whole and was not taken yet."""
        while (message := self._take()) is not None:
            yield message

    def next(self) -> Any:
        """The next message, waited for; others that came with it stay."""
        while (message := self._take()) is None:
            self._receive()
        return message

    def last_words(self) -> list[Any]:
        """What had come before the other side went, and was not taken; to be asked once it is gone."""
        found: list[Any] = []
        with contextlib.suppress(LinkLost):
            self.connection.setblocking(False)
            while True:
                found.extend(self.whole())
                self._receive()
        return found

    def has_heard(self) -> bool:
        """Whether something has come that was not read yet."""
        look = select.poll()
        look.register(self.connection, select.POLLIN)
        return bool(look.poll(0))

    def _receive(self) -> None:
        try:
            data = self.connection.recv(1 << 16)
        except OSError as error:
            raise LinkLost(f"cannot be read: {error}") from error
        if not data:
            raise LinkLost("the connection was closed")
        self.heard_at = time.monotonic()
        self._received += data

    def _take(self) -> Any:
        """The first message that is whole, or None."""
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > _MAX_BYTES:
            raise LinkLost(f"a message of {length} bytes is too long")
        end = _LENGTH.size + length
        if len(self._received) < end:
            return None
        body = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        try:
            return self._decoder.decode(body)
        except msgspec.DecodeError as error:
            raise LinkLost(f"said what is no message: {error}") from error

    def close(self) -> None:
        """Hang up."""
        self._closing.set()
        with self._lock:
            self.connection.close()


def prove(token: str, role: str, nonce: str, about: object = None) -> str:
    """The proof that `role` knows the token, over the other side's nonce and what is claimed."""
    claimed = json.dumps([role, nonce, about], sort_keys=True).encode()
    return hmac.new(token.encode(), claimed, hashlib.sha256).hexdigest()


def claims(hello: Hello) -> dict[str, Any]:
    """What the proof of a hello covers: all of it but the proof."""
    plain: dict[str, Any] = msgspec.to_builtins(hello)
    return {key: value for key, value in plain.items() if key != "proof"}


def is_proof(token: str, hello: Hello, nonce: str) -> bool:
    """Whether a member's hello shows that it knows the token."""
    return hmac.compare_digest(prove(token, "member", nonce, claims(hello)), hello.proof)
