"""A host's agent that follows another, where a race has to be brought about: real connections, nothing else."""

import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from tradewind.agent import wire
from tradewind.agent.member import Member
from tradewind.agent.wire import Link, LinkLost


def pair() -> tuple[Link, Link]:
    """Both ends of a connection: the leader's, and a member's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        member = socket.create_connection(listening.getsockname())
        leader, _ = listening.accept()
    return Link(leader, Any), Link(member, wire.FromLeader)


def write_until_lost(link: Link) -> None:
    """The other side has closed without reading: the first write after that is answered by a reset."""
    while True:
        link.say(wire.Here())


def test_what_was_said_before_the_other_side_went_can_be_read() -> None:
    """Whole messages, in order; after a reset that a write found out."""
    leader, member = pair()
    member.say(wire.Here())
    leader.say(wire.Break(serial=3))
    leader.say(wire.Finish(exit_code=7, reason="done"))
    leader.close()
    with pytest.raises(LinkLost):
        write_until_lost(member)
    assert member.last_words() == [wire.Break(serial=3), wire.Finish(exit_code=7, reason="done")]
    assert member.last_words() == []
    member.close()


@pytest.mark.parametrize("over", [True, False])
def test_a_member_that_is_writing_when_the_run_ends_ends_with_it(
    over: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """And looks for another leader only where the run was not said to be over."""
    host: Any = SimpleNamespace(release=lambda kept: None)
    job: Any = SimpleNamespace(memory_dir="/nonexistent", survivor_s=0.0)
    following = Member(job, host, ("127.0.0.1", 1), "token")
    leader, link = pair()
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            following._exit_code = 1
            return
        following._link = link
        following._selector.register(link, 1, lambda: None)
        link.say(wire.Here())
        if over:
            leader.say(wire.Finish(exit_code=7, reason="done"))
        leader.close()

    following._call = call  # type: ignore[method-assign]
    following._wait = lambda: write_until_lost(link)  # type: ignore[method-assign]
    reading, writing = os.pipe()
    signals: Any = SimpleNamespace(fd=reading, read=list)
    assert following.serve(signals) == (7 if over else 1)
    assert calls == (1 if over else 2)
    said = capsys.readouterr().out
    assert ("the run is over here: done" in said) is over
    assert ("lost the leader" in said) is not over
    following.close()
    os.close(reading)
    os.close(writing)
