"""What kind of failure it was, for whoever decides what to do about it."""

import enum
import re

import msgspec

from tradewind.diagnose.first_failure import Failure
from tradewind.diagnose.xid import Xid, find_xids, is_ecc_error


class Cause(enum.StrEnum):
    """Classes of failure that ask for different remedies."""

    KILLED = "killed"
    """Ended from outside: SIGKILL or SIGTERM that nobody here sent."""
    CRASH = "crash"
    """SIGSEGV, SIGABRT, SIGBUS, ...: the process broke itself."""
    EXCEPTION = "exception"
    HOST_MEMORY = "host_memory"
    DEVICE_MEMORY = "device_memory"
    HANG = "hang"
    PREEMPTED = "preempted"
    HOST_LOST = "host_lost"
    DEVICE = "device"
    """The accelerator reported an error: an Xid, or memory that failed its ECC check."""
    DATA = "data"
    """The script said that this data will fail again (exit 65)."""
    USAGE = "usage"
    """An import, a syntax or a command line that is wrong."""
    PEER_LOST = "peer_lost"
    """Every worker only says that another was gone: the network between them broke."""
    NO_PROGRESS = "no_progress"
    """Workers live and answer, and nothing is committed."""


class Symptom(msgspec.Struct, frozen=True, kw_only=True):
    """A failure's class with the evidence that a decision rests on."""

    cause: Cause
    text: str
    """What happened, as part of a sentence."""
    xids: tuple[Xid, ...] = ()
    signature: str = ""
    """Exception, message and place, with numbers and addresses left out; equal for equal bugs."""
    transient: bool = False
    """The world outside failed (a connection, a file server), so the same error twice proves nothing."""
    ecc: bool = False


_BY_KIND = {
    "killed": Cause.KILLED,
    "crash": Cause.CRASH,
    "out_of_memory": Cause.HOST_MEMORY,
    "peer_lost": Cause.PEER_LOST,
    "import": Cause.USAGE,
    "usage": Cause.USAGE,
    "data": Cause.DATA,
    "hang": Cause.HANG,
    "host_lost": Cause.HOST_LOST,
}
_HAS_PLACE = frozenset({"exception", "out_of_memory", "import", "usage", "data", "peer_lost"})
"""Kinds of failure that say where they happened; a signal or a bare exit code does not."""
_MAY_BE_DEVICE = frozenset({Cause.KILLED, Cause.CRASH, Cause.EXCEPTION, Cause.PEER_LOST})
_DEVICE_MEMORY = re.compile(r"\b(CUDA|HIP|XPU|MPS|NVML)\b[^\n]*out of memory|OutOfMemoryError", re.IGNORECASE)
_HOST_MEMORY = re.compile(r"can(no|')t allocate memory|^MemoryError\b", re.IGNORECASE)
_TRANSIENT = re.compile(
    r"^[\w.]*(Connection\w*Error|BrokenPipeError|Timeout\w*|gaierror|DistNetworkError|DistStoreError)\b"
    r"|timed out|Temporary failure in name resolution|Stale file handle|Input/output error"
    r"|Too Many Requests|Service Unavailable|Bad Gateway"
)
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in (\S+)')
_VARIES = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8,}\b|\d+")
_MESSAGE_LIMIT = 300


def read_cause(failure: Failure, *, oom_killed: bool = False, kernel_log: str = "") -> Symptom:
    """Classify a first failure.

    `oom_killed`: the worker's control group counted an OOM kill (`memory.events`), or the kernel log
    says so. `kernel_log`: its lines since the attempt began; older Xids are not this failure's.
    """
    xids = find_xids(f"{failure.text}\n{kernel_log}")
    said = f"{failure.exception}\n{failure.text}"
    ecc = is_ecc_error(said)
    return Symptom(
        cause=cause_of(failure, device=bool(xids) or ecc, oom_killed=oom_killed),
        text=describe(failure, xids),
        xids=xids,
        signature=signature(failure.exception, failure.text) if failure.kind in _HAS_PLACE else "",
        transient=_TRANSIENT.search(failure.exception) is not None,
        ecc=ecc,
    )


def cause_of(failure: Failure, *, device: bool, oom_killed: bool) -> Cause:
    """The class alone."""
    cause = _BY_KIND.get(failure.kind, Cause.EXCEPTION)
    if cause is Cause.KILLED and oom_killed:
        return Cause.HOST_MEMORY
    if device and cause in _MAY_BE_DEVICE:
        return Cause.DEVICE
    if cause is Cause.HOST_MEMORY and _DEVICE_MEMORY.search(failure.exception):
        return Cause.DEVICE_MEMORY
    if cause is Cause.EXCEPTION and _HOST_MEMORY.search(failure.exception):
        return Cause.HOST_MEMORY
    return cause


def describe(failure: Failure, xids: tuple[Xid, ...]) -> str:
    """`rank 1: ...`, with the device's own report in front where there is one."""
    reports = "; ".join(str(xid) for xid in xids)
    said = failure.exception[:_MESSAGE_LIMIT]
    return f"rank {failure.rank}: " + (f"{reports}; {said}" if reports else said)


def signature(exception: str, text: str) -> str:
    """An exception with its place, without what differs from one occurrence to the next."""
    place = _FRAME.findall(text)
    at = f" at {place[-1][0].rsplit('/', 1)[-1]}:{place[-1][1]} in {place[-1][2]}" if place else ""
    return _VARIES.sub("#", exception[:_MESSAGE_LIMIT]) + at
