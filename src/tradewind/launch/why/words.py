"""What a container's last words say about why it ended."""

import re

from tradewind.launch.why.cause import Code
from tradewind.launch.why.pods import Terminated
from tradewind.names import ExitCode

_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Exit|Interrupt)\b.*", re.MULTILINE)
_MEMORY = re.compile(r"out of memory|OutOfMemoryError|^MemoryError", re.MULTILINE)
_RENDEZVOUS = re.compile(
    r"rendezvous|\bgloo\b.{0,300}(connect|timed? ?out)|connectFullMesh|ncclRemoteError|ncclSystemError"
    r"|socketStartConnect|NCCL.{0,300}(connect|unreachable|No route|Connection refused)"
    r"|(TCPStore|c10d).{0,300}(timed? ?out|connect)|client socket has|waiting for clients"
    r"|DistNetworkError|DistStoreError|(could not|cannot) (resolve|connect to) .{0,300}(master|coordinator)"
    r"|Temporary failure in name resolution|Name or service not known|No route to host",
    re.IGNORECASE | re.DOTALL,
)
_PEER_LOST = re.compile(
    r"closed by (remote )?peer|reset by peer|Broken pipe|remote process exit|communicator was aborted"
    r"|Watchdog caught collective|recvValue failed|sendBytes failed|Socket closed"
)
_PYTHONS_OWN = re.compile(r"(Connection\w*|BrokenPipe)Error\b")
"""Raised for any socket: a file server's as well as a peer's."""


def last_words(text: str) -> str:
    """From the last exception on, where there is one: what a log says before it is about something else."""
    found = [*_EXCEPTION.finditer(text)]
    return text[found[-1].start() :] if found else text


def headline(text: str) -> str:
    """The one line to show: the exception, else the last line."""
    lines = [line.strip() for line in last_words(text).splitlines() if line.strip()]
    return (lines[0] if _EXCEPTION.search(text) else lines[-1]) if lines else ""


def lost_a_peer(text: str) -> bool:
    """Whether it only says that another process is gone."""
    words = last_words(text)
    return bool(_PEER_LOST.search(words)) and not _PYTHONS_OWN.match(words)


def code_of(ended: Terminated, looping: bool = False) -> Code:
    """The class of one container's end."""
    words = last_words(ended.text)
    if ended.reason == "OOMKilled" or _MEMORY.search(words):
        return Code.OUT_OF_MEMORY
    if ended.exit_code == ExitCode.REQUEUE:
        return Code.PREEMPTED
    if _RENDEZVOUS.search(words) or lost_a_peer(ended.text):
        return Code.RENDEZVOUS
    if ended.exit_code in (137, 143) and not words and not looping:
        return Code.KILLED
    return Code.CRASH_LOOP if looping else Code.USER_ERROR
