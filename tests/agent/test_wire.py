"""The link between agents: what is said arrives, and who may not speak is not listened to."""

import json
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradewind.agent import wire
from tradewind.agent.fleet import read_fleet
from tradewind.agent.host import LocalHost
from tradewind.agent.job import Job
from tradewind.agent.remote import Clock, RemoteHost
from tradewind.agent.roster import Roster, Seat
from tradewind.agent.standby import Standby
from tradewind.agent.wire import Hello, Link, LinkLost
from tradewind.agent.worker import Worker
from tradewind.errors import SpecError

TOKEN = "sixteen letters!"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Link]]:
    """A raw socket of somebody, and the link at which they speak."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        raw = socket.create_connection(server.getsockname())
        link = Link(server.accept()[0], wire.FromMember)
        yield raw, link
        raw.close()
        link.close()


def framed(body: bytes) -> bytes:
    """A message as it goes over the connection."""
    return struct.pack("!I", len(body)) + body


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20), st.integers(1, 50))
def test_messages_arrive_whole_and_in_order(
    ends: tuple[socket.socket, Link], serials: list[int], piece: int
) -> None:
    """However the bytes are cut, each message comes once, and `next` leaves the others for later."""
    raw, link = ends
    data = b"".join(framed(msgspec.json.encode(wire.Parked(serial))) for serial in serials)
    for start in range(0, len(data), piece):
        raw.sendall(data[start : start + piece])
    assert link.next() == wire.Parked(serials[0])
    found = list(link.whole())
    while len(found) < len(serials) - 1:
        found += link.hear()
    assert found == [wire.Parked(serial) for serial in serials[1:]]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        framed(b"not json"),
        framed(b'{"say": "parked"}'),
        framed(b'{"say": "parked", "serial": "1"}'),
        framed(b'{"say": "parked", "serial": 1, "more": 2}'),
        framed(b'{"say": "start", "serial": 1, "place": {}}'),
        framed(b"[" * 100_000),
    ],
    ids=["endless", "no-json", "incomplete", "ill-typed", "too-much", "of-the-other-side", "deep"],
)
def test_what_is_no_message_ends_the_link(ends: tuple[socket.socket, Link], data: bytes) -> None:
    """Anything but a message of the other side's kind is refused, before much memory is given to it."""
    raw, link = ends
    raw.sendall(data)
    raw.shutdown(socket.SHUT_WR)
    with pytest.raises(LinkLost):
        link.next()


class Listener:
    """Hears what a roster tells."""

    def __init__(self) -> None:
        self.came: list[RemoteHost] = []
        self.lost: list[str] = []
        self.ended: list[Worker] = []

    def worker_ended(self, worker: Worker) -> None:
        self.ended.append(worker)

    def journal_entry(self, attempt: int, rank: int, entry: dict[str, Any]) -> None: ...

    def host_came(self, host: RemoteHost) -> None:
        self.came.append(host)

    def host_lost(self, host: RemoteHost, why: str) -> None:
        self.lost.append(why)

    def asked(self, signum: int) -> None: ...

    def found(self, host: RemoteHost, evidence: dict[str, Any]) -> None: ...


class Leader:
    """A roster that answers at a door of its own."""

    def __init__(self, folder: Path) -> None:
        job = Job(run="r", run_dir=folder, workdir=folder, script="train.py", workers=2, hosts=2)
        self.standby = Standby({}, folder / "standby.log")
        local = LocalHost(job, self.standby, index=0, capacity=2)
        self.ears = Listener()
        door = socket.create_server(("127.0.0.1", 0))
        self.address = door.getsockname()
        self.selector = selectors.DefaultSelector()
        self.roster = Roster("r", local, Seat(door=door, token=TOKEN), self.ears)
        self.roster.watch(self.selector)

    def listen(self) -> None:
        """Take in what comes next."""
        for key, _ in self.selector.select(30):
            key.data()

    def close(self) -> None:
        self.roster.close(None)
        self.selector.close()
        self.standby.close()


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    """A leader of a run of two hosts."""
    built = Leader(tmp_path)
    yield built
    built.close()


def call(leader: Leader) -> tuple[Link, str]:
    """A connection to the leader, and its nonce."""
    link = Link(socket.create_connection(leader.address), wire.FromLeader)
    leader.listen()
    return link, link.next().nonce


def hello(nonce: str, token: str = TOKEN, **changes: Any) -> Hello:
    """What host 1 says, with a proof by `token`; then `changes` are made to it."""
    said = Hello("r", 1, "10.0.0.2", 2, (7, 8), secrets.token_hex(8), "")
    said = msgspec.structs.replace(said, proof=wire.prove(token, "member", nonce, wire.claims(said)))
    return msgspec.structs.replace(said, **changes)


def test_a_host_that_knows_the_token_is_welcome(leader: Leader) -> None:
    """It gets a proof in return, counts as room, and is given up with its workers when it hangs up."""
    link, nonce = call(leader)
    said = hello(nonce)
    link.say(said)
    leader.listen()
    assert link.next().proof == wire.prove(TOKEN, "leader", said.nonce)
    assert leader.roster.capacity == 4
    link.close()
    while not leader.ears.lost:
        leader.listen()
    assert leader.roster.capacity == 2


@pytest.mark.parametrize(
    "changes",
    [{"token": "sixteen letters?"}, {"capacity": 99}, {"run": "another"}, {"host": 0}, {"proof": "0" * 64}],
    ids=lambda changes: next(iter(changes)),
)
def test_others_are_turned_away(leader: Leader, changes: dict[str, Any]) -> None:
    """A wrong token, a claim that the proof does not cover, another run, the leader's own number: no answer."""
    link, nonce = call(leader)
    link.say(hello(nonce, **changes))
    leader.listen()
    with pytest.raises(LinkLost, match="closed"):
        link.next()
    assert leader.roster.capacity == 2
    assert leader.ears.came == []
    link.close()


def test_a_recorded_hello_is_not_welcome_again(leader: Leader) -> None:
    """A proof holds for the connection it was made for."""
    link, nonce = call(leader)
    again, _ = call(leader)
    again.say(hello(nonce))
    leader.listen()
    with pytest.raises(LinkLost, match="closed"):
        again.next()
    for one in (link, again):
        one.close()


def test_an_agent_that_starts_again_takes_its_own_place(leader: Leader) -> None:
    """The host it was before is lost, and the same number is not counted twice."""
    links = []
    for _ in range(2):
        link, nonce = call(leader)
        link.say(hello(nonce))
        leader.listen()
        links.append(link)
    assert leader.ears.lost == ["its agent started again"]
    assert leader.roster.capacity == 4
    for link in links:
        link.close()


def member(leader: Leader, attempt: int = -1) -> tuple[Link, RemoteHost]:
    """Host 1 as it sees the leader, and as the leader sees it; `attempt`: it has taken part before."""
    link, nonce = call(leader)
    said = Hello("r", 1, "10.0.0.2", 2, (7, 8), secrets.token_hex(8), "", attempt=attempt)
    link.say(msgspec.structs.replace(said, proof=wire.prove(TOKEN, "member", nonce, wire.claims(said))))
    leader.listen()
    return link, leader.ears.came[-1]


def test_a_silent_host_is_given_up_when_its_lease_ends(leader: Leader) -> None:
    """Not before, and not for a message that only waits to be read."""
    link, host = member(leader)
    now = host.link.heard_at
    host.look(now + 0.9 * host.lease.seconds)
    link.say(wire.Here())
    while not host.link.has_heard():
        pass
    host.link.heard_at = now - 1.1 * host.lease.seconds
    host.look(now)
    assert leader.ears.lost == []
    host.look(host.link.heard_at + 1.1 * host.lease.seconds)
    assert ["silent for 2.20 s, and its lease is 2.00 s" in why for why in leader.ears.lost] == [True]
    link.close()


def test_what_a_leader_was_late_is_nobodys_silence(leader: Leader) -> None:
    """A leader that did not get to look gives hosts the time that it took from them; but it does look."""
    link, host = member(leader)
    host.link.heard_at -= 1.5
    leader.roster.look_at = time.monotonic() - 1.0
    leader.roster.look()
    assert leader.ears.lost == []
    assert time.monotonic() - host.link.heard_at < 1.0
    host.link.heard_at -= 2.5
    leader.roster.look_at = time.monotonic()
    leader.roster.look()
    assert len(leader.ears.lost) == 1
    link.close()


@pytest.mark.parametrize(("attempt", "times"), [(3, 2), (-1, 1)], ids=["the same agent", "another one"])
def test_a_host_that_was_given_up_too_early_is_waited_for_longer(
    leader: Leader, attempt: int, times: int
) -> None:
    """It comes back at once with the agent that was there before, so that it had never been away."""
    link, host = member(leader)
    for _ in range(400):
        host.lease.heard(0.1, host.link.heard_at + 100.0)
    assert host.lease.seconds == 1.0
    host.lose("it was silent")
    link.close()
    link, host = member(leader, attempt)
    assert host.lease.seconds == times * 1.0
    link.close()


@given(st.floats(-1e6, 1e6), st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=20))
def test_clocks_are_compared_to_within_half_an_exchange(
    ahead: float, trips: list[tuple[float, float]]
) -> None:
    """Their time on our clock is off by no more than half of the shortest exchange."""
    clock, now = Clock(), 1e9
    for there, back in trips:
        clock.learn(now, now + there + ahead, now + there + back)
        now += 10
    shortest = min(there + back for there, back in trips)
    # Of two exchanges nearly as short the later one counts.
    assert abs(clock.ours(now + ahead) - now) <= shortest / 2 * 1.001 ** len(trips) + 1e-5


FLEET = {"TRADEWIND_HOSTS": "127.0.0.1:1,b:2", "TRADEWIND_HOST": "0", "TRADEWIND_TOKEN": TOKEN}


def test_the_environment_says_who_the_hosts_are() -> None:
    """Names, ports, the own index, and the address that the own name resolves to."""
    fleet = read_fleet(FLEET)
    assert (fleet.agents, fleet.index, fleet.address) == ((("127.0.0.1", 1), ("b", 2)), 0, "127.0.0.1")
    assert fleet.leads


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TRADEWIND_HOSTS", "", "TRADEWIND_HOSTS is not set"),
        ("TRADEWIND_HOSTS", "a:1,b", "'b' is not NAME:PORT"),
        ("TRADEWIND_HOSTS", "a:0", "'a:0' is not NAME:PORT"),
        ("TRADEWIND_HOST", "2", "'2' is not one of 0 to 1"),
        ("TRADEWIND_HOST", "-1", "'-1' is not one of 0 to 1"),
        ("TRADEWIND_TOKEN", "short", "TRADEWIND_TOKEN is too short"),
    ],
)
def test_a_wrong_environment_is_named(name: str, value: str, said: str) -> None:
    """The variable that is missing or wrong is in the error."""
    with pytest.raises(SpecError, match=said):
        read_fleet(FLEET | {name: value})


def test_workers_do_not_see_the_token(tmp_path: Path) -> None:
    """What agents know each other by is not in the environment of the scripts they run."""
    from tradewind.agent.job import shared_environment

    job = Job(run="r", run_dir=tmp_path, workdir=tmp_path, script="train.py")
    assert TOKEN not in json.dumps(shared_environment(job, FLEET))
