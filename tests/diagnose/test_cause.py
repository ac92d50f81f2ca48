"""From a first failure to its class and its signature."""

import pytest

from tradewind.diagnose.cause import Cause, read_cause, signature
from tradewind.diagnose.first_failure import Failure

XID_79 = "NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off the bus."
CUDA_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
CPU_OOM = "RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"


def failure(kind: str, exception: str = "", text: str = "", exit_code: int = 1) -> Failure:
    return Failure(rank=1, kind=kind, exception=exception, text=text, exit_code=exit_code, t_s=0.0)


@pytest.mark.parametrize(
    ("found", "evidence", "cause"),
    [
        (failure("killed", "killed by SIGKILL"), {}, Cause.KILLED),
        (failure("killed", "killed by SIGKILL"), {"oom_killed": True}, Cause.HOST_MEMORY),
        (failure("crash", "killed by SIGSEGV"), {}, Cause.CRASH),
        (failure("crash", "killed by SIGABRT"), {"kernel_log": XID_79}, Cause.DEVICE),
        (failure("out_of_memory", CUDA_OOM), {}, Cause.DEVICE_MEMORY),
        (failure("out_of_memory", "MemoryError"), {}, Cause.HOST_MEMORY),
        (failure("exception", CPU_OOM), {}, Cause.HOST_MEMORY),
        (failure("exception", "ValueError: no"), {}, Cause.EXCEPTION),
        (failure("exception", "RuntimeError: CUDA error: uncorrectable ECC error"), {}, Cause.DEVICE),
        (failure("exit", "exit code 3"), {}, Cause.EXCEPTION),
        (failure("peer_lost", "RuntimeError: Connection closed by peer"), {}, Cause.PEER_LOST),
        (failure("import", "ModuleNotFoundError: No module named 'x'"), {}, Cause.USAGE),
        (failure("usage", "exit code 2"), {}, Cause.USAGE),
        (failure("data", "exit code 65"), {"kernel_log": XID_79}, Cause.DATA),
    ],
)
def test_classes(found: Failure, evidence: dict[str, object], cause: Cause) -> None:
    """Each kind of failure, with what else is known, is of one class."""
    assert read_cause(found, **evidence).cause is cause  # type: ignore[arg-type]


def test_the_text_names_rank_and_report() -> None:
    """What is said of a device error has the rank, the driver's report and the exception."""
    symptom = read_cause(failure("exception", "RuntimeError: CUDA error: unspecified"), kernel_log=XID_79)
    assert (
        symptom.text == "rank 1: Xid 79 (GPU has fallen off the bus); RuntimeError: CUDA error: unspecified"
    )


TRACE = """Traceback (most recent call last):
  File "/runs/{run}/code/train.py", line 40, in <module>
    main()
  File "/runs/{run}/code/train.py", line 33, in step
    raise ValueError
"""


def test_equal_bugs_have_equal_signatures() -> None:
    """Numbers, addresses and folders differ between two occurrences of one bug; its signature does not."""
    one = signature("ValueError: index 17 of <T at 0x7f00aa> is bad", TRACE.format(run="3f"))
    other = signature("ValueError: index 901 of <T at 0x5500bb> is bad", TRACE.format(run="a1"))
    assert one == other == "ValueError: index # of <T at #> is bad at train.py:33 in step"


def test_other_places_and_messages_differ() -> None:
    """Another line, or another message, is another bug."""
    here = TRACE.format(run="3f")
    assert signature("ValueError: a", here) != signature("ValueError: a", here.replace("line 33", "line 34"))
    assert signature("ValueError: a", here) != signature("ValueError: b", here)


@pytest.mark.parametrize(
    ("exception", "transient"),
    [
        ("ConnectionResetError: [Errno 104] Connection reset", True),
        ("urllib3.exceptions.ReadTimeoutError: timed out", True),
        ("botocore.exceptions.ClientError: 503 Service Unavailable", True),
        ("OSError: [Errno 116] Stale file handle", True),
        ("KeyError: 'connection'", False),
        ("RuntimeError: shape mismatch", False),
    ],
)
def test_the_outside_world_is_no_bug(exception: str, transient: bool) -> None:
    """Errors of networks and file servers are told from errors of the code."""
    assert read_cause(failure("exception", exception)).transient is transient
