"""A host's staged images in the memory of the next host, where they outlive the loss of the first.

The worker with local rank 0 of every host serves: it takes images for the host before it, and gives them
back. Every worker sends its own from a thread, at most one at a time, all workers the same steps.
"""

import contextlib
import hmac
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradewind.errors import TradewindError
from tradewind.train.checkpoint import copies, wire
from tradewind.train.checkpoint.copies import Of
from tradewind.train.checkpoint.mapped import Mapped
from tradewind.train.checkpoint.memory import Memory, Staged
from tradewind.train.checkpoint.pace import Pace

IDLE, FAILED, SENDING = range(3)
"""What a worker says of its last image: it is there, it is not, it is on its way."""


@dataclass(frozen=True, kw_only=True)
class Ring:
    """The hosts, each with the address at which it takes images, and which of them this one is."""

    addresses: tuple[str, ...]
    own: int
    secret: str
    """Known to the workers of this attempt alone."""

    @property
    def holder(self) -> str:
        """Where this host's images go."""
        return self.addresses[(self.own + 1) % len(self.addresses)]


def _agree(answer: dict[str, Any]) -> dict[str, Any]:
    if answer["why"]:
        raise TradewindError(answer["why"])
    return answer


class Server:
    """Takes images for the host before this one, and gives them back, until it is closed."""

    def __init__(self, folder: Path, ring: Ring) -> None:
        self._folder = folder
        self._secret = ring.secret
        (folder / copies.FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in (folder / copies.FOLDER).glob("*.new"):
            left.unlink(missing_ok=True)
        self._socket = wire.listen(ring.addresses[ring.own])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="tradewind-mirror", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # It was closed.
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(
                    target=self._serve, args=(connection,), name="tradewind-mirror", daemon=True
                ).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        # Who asked sees the connection close, and says so on its side.
        with connection, contextlib.suppress(OSError, ValueError, KeyError, TypeError, TradewindError):
            connection.settimeout(wire.PATIENCE_S)
            asked = wire.hear(connection)
            if not hmac.compare_digest(str(asked["secret"]), self._secret):
                wire.say(connection, why="it is of another attempt")
            elif asked["do"] == "take":
                self._take(connection, asked)
            else:
                self._give(connection, int(asked["rank"]), Of(*asked["of"]))
        with self._lock:
            self._open.discard(connection)

    def _take(self, connection: socket.socket, asked: dict[str, Any]) -> None:
        local_rank, version = int(asked["local_rank"]), (int(asked["step"]), int(asked["generation"]))
        keep = [(int(step), int(generation)) for step, generation in asked["keep"]]
        copies.drop(self._folder, local_rank, keep)
        path = copies.path_of(self._folder, local_rank, version)
        try:
            # Nothing is sent in vain, and an answer to something that was not read would get lost.
            wire.receive(connection, int(asked["size"]), path, begin=lambda: wire.say(connection, why=None))
        except TradewindError as error:
            wire.say(connection, why=str(error))
        else:
            wire.say(connection, why=None)

    def _give(self, connection: socket.socket, rank: int, what: Of) -> None:
        found = copies.find(self._folder, what).get(rank)
        if found is None:
            wire.say(connection, why=f"rank {rank}'s image of that step is not here")
            return
        kept = Mapped(*found)
        wire.say(connection, why=None, size=wire.size_of(kept.header))
        wire.send(connection, kept.header, kept.staged)

    def close(self) -> None:
        """Serve nobody any more; what is held stays."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


class Mirror:
    """Sends a worker's staged images to the next host, one at a time; the newest that is whole there stays.

    The workers agree between two sendings, by `state`, that the last one was whole on all of them. Until
    the next is, the image it was made of is kept here too: a step counts if every host's images of it are
    somewhere.
    """

    def __init__(self, memory: Memory, ring: Ring, *, share: float = 0.25) -> None:
        self.ring = ring
        self._memory = memory
        self._pace = Pace(share)
        self._state = IDLE
        self._whole: Staged | None = None
        """What all workers' next hosts have."""
        self._last: Staged | None = None
        self._connection: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._why: str | None = None
        self._told = False
        self._server = Server(memory.folder, ring) if memory.worker.local_rank == 0 else None

    @property
    def state(self) -> int:
        """IDLE, FAILED or SENDING."""
        return self._state

    def failure(self) -> str | None:
        """Why images are not taken any more, once until one is taken again."""
        why, self._why = self._why, None
        return why

    def hold(self, step: int) -> None:
        """Keep the image of a step that all next hosts are known to have."""
        self._whole = self._memory.pin(step)

    def finish(self) -> int:
        """Wait until what is being sent is there, or is not; the state then."""
        with self._pace.hurried():
            if self._thread is not None:
                self._thread.join()
        return self._state

    def start(self, step: int | None, failed: bool) -> None:
        """Send the step that was staged last. Every worker calls it for the same step, after none was SENDING.

        `failed` says that some worker's last image is not whole at its next host; a `step` of None, that
        this one has nothing to send.
        """
        self._settle(failed)
        if step is None:
            self._state = FAILED
            return
        self._last = self._memory.pin(step)
        self._state = SENDING
        self._thread = threading.Thread(
            target=self._run, args=(self._last,), name="tradewind-send", daemon=True
        )
        self._thread.start()

    def _settle(self, failed: bool) -> None:
        """Of the last two images keep the one that counts."""
        given_up, self._whole = (
            (self._last, self._whole) if failed else (self._whole, self._last or self._whole)
        )
        if given_up is not None and given_up is not self._whole:
            self._memory.release(given_up)
        self._last = None

    def _run(self, staged: Staged) -> None:
        try:
            self._send(staged)
        except (OSError, ValueError, KeyError, TradewindError) as error:
            if not self._told:
                self._why = f"the host at {self.ring.holder} did not take step {staged.header.step}: {error}"
            self._told = True
            self._state = FAILED
        else:
            self._told = False
            self._state = IDLE

    def _send(self, staged: Staged) -> None:
        header = staged.header
        keep = [[self._whole.header.step, self._whole.header.generation]] if self._whole else []
        with wire.connect(self.ring.holder, self._note) as connection:
            wire.say(
                connection,
                do="take",
                secret=self.ring.secret,
                local_rank=header.local_rank,
                step=header.step,
                generation=header.generation,
                size=wire.size_of(header),
                keep=keep,
            )
            _agree(wire.hear(connection))
            wire.send(connection, header, staged.view, self._pace)
            _agree(wire.hear(connection))

    def _note(self, connection: socket.socket) -> None:
        self._connection = connection

    def fetch(self, what: Of) -> None:
        """Get this worker's image of a state back from the next host. Raises a TradewindError if that fails."""
        self._get(self.ring.holder, self._memory.worker.rank, what, self._memory.take_in)

    def borrow(self, host: int, rank: int, what: Of) -> None:
        """Get another worker's from a host that has it, until the next stage. Raises a TradewindError."""
        self._get(self.ring.addresses[host], rank, what, self._memory.borrow)

    def _get(
        self, address: str, rank: int, what: Of, take: Callable[[Callable[[Path], object]], None]
    ) -> None:
        try:
            with wire.connect(address) as connection:
                wire.say(connection, do="give", secret=self.ring.secret, rank=rank, of=what)
                answer = _agree(wire.hear(connection))
                take(lambda path: wire.receive(connection, int(answer["size"]), path))
        except (OSError, ValueError, KeyError) as error:
            raise TradewindError(f"the host at {address} did not give step {what.step}: {error}") from error

    def close(self) -> None:
        """Send and serve no more, and let go of all images."""
        self._pace.give_up()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        if self._server is not None:
            self._server.close()
        for staged in (self._whole, self._last):
            if staged is not None:
                self._memory.release(staged)
        self._whole = self._last = None
