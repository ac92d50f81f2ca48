"""What is made of a container's last words."""

import pytest

from tradewind.launch.why.pods import Terminated
from tradewind.launch.why.words import code_of, headline, lost_a_peer

CHATTER = "NCCL INFO Bootstrap : Using eth0:10.0.0.7<0>\nNCCL INFO Connected all rings\nrestore: connecting\n"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("KeyError: 'user'", "user-error"),
        (CHATTER + "Traceback (most recent call last):\n  ...\nKeyError: 'user'", "user-error"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out-of-memory"),
        ("MemoryError", "out-of-memory"),
        ("warning: out of memory soon\nValueError: bad shape", "user-error"),
        ("torch.distributed.DistNetworkError: The client socket has timed out after 60000ms", "rendezvous"),
        (
            "torch.distributed.DistStoreError: Timed out after 301 seconds waiting for clients. 1/2",
            "rendezvous",
        ),
        ("RuntimeError: [pair.cc:534] Connection closed by peer [10.1.2.3]:4312", "rendezvous"),
        (
            "torch.distributed.DistBackendError: NCCL error in: x.cpp:94\nncclSystemError: System call\n"
            "Last error:\nsocketStartConnect: Connect to 10.1.2.3<45321> failed : Connection refused",
            "rendezvous",
        ),
        ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "rendezvous"),
        ("ConnectionResetError: [Errno 104] Connection reset by peer", "user-error"),
        ("BrokenPipeError: [Errno 32] Broken pipe", "user-error"),
    ],
)
def test_the_last_exception_decides(message: str, code: str) -> None:
    """What a log says before its last exception does not count, and Python's own socket errors are no peer's."""
    assert code_of(Terminated(exit_code=1, message=message)) == code


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Terminated(exit_code=137, reason="OOMKilled"), "out-of-memory"),
        (Terminated(exit_code=137, reason="Error"), "killed"),
        (Terminated(exit_code=143, reason="Error"), "killed"),
        (Terminated(exit_code=75, reason="Error"), "preempted"),
        (Terminated(exit_code=1, reason="Error"), "user-error"),
    ],
)
def test_exit_codes_without_words(ended: Terminated, code: str) -> None:
    """A reason or an exit code that says something, and one that does not."""
    assert code_of(ended) == code
    assert code_of(Terminated(exit_code=1), looping=True) == "crash-loop"


def test_the_line_to_show() -> None:
    """The exception with its type, else the last line."""
    assert headline(CHATTER + "ValueError: two\nlines\n") == "ValueError: two"
    assert headline("one\ntwo\n\n") == "two"
    assert headline("") == ""


def test_who_only_lost_a_peer() -> None:
    """A closed connection to a peer is secondary; not being able to make one is not."""
    assert lost_a_peer("RuntimeError: [pair.cc:534] Connection closed by peer [10.1.2.3]:4312")
    assert not lost_a_peer("RuntimeError: Gloo connectFullMesh failed")
