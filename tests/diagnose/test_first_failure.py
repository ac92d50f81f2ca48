"""Which rank failed first and why, on tables of real ends."""

import signal
from pathlib import Path

import pytest

from tests.diagnose import logs
from tradewind.diagnose.first_failure import RankExit, classify, describe_exit, first_failure, read_exit


def ended(rank: int, code: int, t_s: float, *, told: bool = False, exception: str = "") -> RankExit:
    """One rank's end without a log."""
    return RankExit(rank=rank, exit_code=code, t_s=t_s, told=told, exception=exception, text=exception)


def read(folder: Path, rank: int, code: int, t_s: float, log: str, *, told: bool = False) -> RankExit:
    """One rank's end with this log."""
    path = folder / f"rank{rank}.log"
    path.write_text(log)
    return read_exit(rank, code, t_s, told=told, log=path)


KINDS = [
    ("peer closed", logs.PEER_CLOSED, 1, "peer_lost"),
    ("peer reset", logs.PEER_RESET, 1, "peer_lost"),
    ("NCCL, below the first line", logs.NCCL_REMOTE, 1, "peer_lost"),
    ("store timeout", logs.STORE_TIMEOUT, 1, "peer_lost"),
    ("peer lost, wrapped by a trainer", logs.WRAPPED_PEER, 1, "peer_lost"),
    ("NCCL watchdog", logs.WATCHDOG, -6, "peer_lost"),
    ("exception", logs.VALUE_ERROR, 1, "exception"),
    ("state dict", logs.STATE_DICT, 1, "exception"),
    ("data loader", logs.DATA_LOADER, 1, "exception"),
    ("host memory", logs.HOST_MEMORY, 1, "out_of_memory"),
    ("device memory", logs.DEVICE_MEMORY, 1, "out_of_memory"),
    ("bad_alloc", logs.BAD_ALLOC, -6, "out_of_memory"),
    ("handled, then killed", logs.VALUE_ERROR, -9, "killed"),
    ("terminated from outside", "", -15, "killed"),
    ("interrupted from outside", "", -2, "killed"),
    ("segmentation fault", "Fatal Python error: Segmentation fault\n", -11, "crash"),
    ("real-time signal", "", -40, "crash"),
    ("data that will fail again", logs.VALUE_ERROR, 65, "data"),
    ("command line", "usage: train.py [-h]\ntrain.py: error: unrecognized arguments: --x\n", 2, "usage"),
    ("exit code", "cannot go on\n", 3, "exit"),
    (
        "import",
        "Traceback (most recent call last):\nModuleNotFoundError: No module named 'x'\n",
        1,
        "import",
    ),
    ("syntax", '  File "train.py", line 1\n    def f(:\nSyntaxError: invalid syntax\n', 1, "import"),
    (
        "the script's own connection",
        "Traceback (most recent call last):\nConnectionResetError: [Errno 104] Connection reset by peer\n",
        1,
        "exception",
    ),
]


@pytest.mark.parametrize(("log", "code", "kind"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
def test_the_class_of_a_rank(tmp_path: Path, log: str, code: int, kind: str) -> None:
    """Each real end has its class, and is the first failure where it is the only one."""
    one = read(tmp_path, 0, code, 5.0, log)
    assert classify(one) == kind
    found = first_failure([one, ended(1, 0, 6.0)])
    assert found is not None
    assert (found.rank, found.kind, found.t_s) == (0, kind, 5.0)
    assert found.hopeless == (kind in ("import", "usage", "data"))
    assert found.exception


@pytest.mark.parametrize(
    ("log", "code"), [(logs.VALUE_ERROR, 1), (logs.HOST_MEMORY, 1), ("", -9), ("", -11), ("bye\n", 3)]
)
@pytest.mark.parametrize(
    "secondary", [logs.PEER_CLOSED, logs.PEER_RESET, logs.NCCL_REMOTE, logs.WRAPPED_PEER]
)
def test_who_only_lost_a_peer_is_not_first(tmp_path: Path, log: str, code: int, secondary: str) -> None:
    """A rank that says that its peer is gone never hides the rank that was gone, even when it was seen first."""
    exits = [read(tmp_path, 0, 1, 9.0, secondary), read(tmp_path, 1, code, 9.5, log)]
    found = first_failure(exits)
    assert found is not None
    assert (found.rank, found.exit_code) == (1, code)


def test_who_was_told_to_end_counts_only_for_what_it_raised(tmp_path: Path) -> None:
    """A survivor that the agent ended did not fail; one that had raised before it was ended did."""
    lost = read(tmp_path, 0, 1, 9.0, logs.PEER_CLOSED)
    told = read(tmp_path, 1, -15, 9.5, "training\n", told=True)
    assert first_failure([told]) is None
    found = first_failure([lost, told])
    assert found is not None
    assert (found.rank, found.kind) == (0, "peer_lost")
    hung_after_raising = read(tmp_path, 2, -9, 9.5, logs.VALUE_ERROR, told=True)
    found = first_failure([lost, told, hung_after_raising])
    assert found is not None
    assert (found.rank, found.kind, found.exception) == (2, "exception", "ValueError: bad batch 7")


TIMED_OUT = (
    "Traceback (most recent call last):\n"
    "RuntimeError: [gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation to complete\n"
)
LOGGED = "training stopped: [gloo/transport/tcp/{}\n"
CLOSED = LOGGED.format("pair.cc:553] Connection closed by peer [127.0.0.1]:27795")
WAITED = LOGGED.format("unbound_buffer.cc:129] Timed out waiting 5000ms for send operation to complete")


@pytest.mark.parametrize("log", [TIMED_OUT, WAITED], ids=["raised", "logged"])
def test_who_was_waited_for_in_vain_hangs(tmp_path: Path, log: str) -> None:
    """Where waits time out, the one rank that had no complaint is named, and what was waited for."""
    exits = [read(tmp_path, r, 1, 5.0 + r, log) for r in (0, 1)]
    silent = read(tmp_path, 2, -9, 8.0, "step 3\n", told=True)
    found = first_failure([*exits, silent])
    assert found is not None
    assert (found.rank, found.kind, found.t_s) == (2, "hang", 5.0)
    assert "Timed out waiting 5000ms" in found.exception
    also = read(tmp_path, 3, -15, 8.0, "step 3\n", told=True)
    unclear = first_failure([*exits, silent, also])
    assert unclear is not None
    assert (unclear.rank, unclear.kind) == (0, "peer_lost")


def test_who_lost_a_peer_by_its_closing_was_not_waiting_for_the_silent_one(tmp_path: Path) -> None:
    """A rank that was ended with the others is no hang where nobody's wait timed out."""
    lost, silent = read(tmp_path, 0, 1, 5.0, logs.PEER_CLOSED), read(tmp_path, 1, -15, 6.0, "", told=True)
    found = first_failure([lost, silent])
    assert found is not None
    assert (found.rank, found.kind) == (0, "peer_lost")


def test_who_logs_a_lost_peer_and_exits_is_not_first(tmp_path: Path) -> None:
    """An exit without a traceback whose last words are about a lost peer does not hide who was slow to end."""
    slow = read(tmp_path, 1, 1, 7.0, logs.VALUE_ERROR, told=True)
    found = first_failure([read(tmp_path, 0, 1, 5.0, CLOSED), slow])
    assert found is not None
    assert (found.rank, found.kind) == (1, "exception")
    earlier = read(tmp_path, 0, 3, 5.0, CLOSED + "step 1\nstep 2\nno more data\n")
    assert classify(earlier) == "exit"


def test_earliest_of_equals_and_then_lowest_rank() -> None:
    """Among failures of their own the earliest is first, and of two at one instant the lower rank."""
    exits = [ended(0, 1, 9.2), ended(1, -9, 9.1), ended(2, 1, 9.1), ended(3, 0, 1.0), ended(4, 75, 1.0)]
    found = first_failure(exits)
    assert found is not None
    assert found.rank == 1
    assert first_failure(exits[3:]) is None
    assert first_failure([]) is None


def test_the_time_in_an_error_file_is_not_read_too_early(tmp_path: Path) -> None:
    """`@record` keeps whole seconds: a rank that raised in the same second after another is not first."""
    error_file, log = tmp_path / "error.json", tmp_path / "rank0.log"
    log.write_text(logs.VALUE_ERROR)
    error_file.write_text('{"message": {"message": "ValueError: late", "extraInfo": {"timestamp": "100"}}}')
    late = read_exit(0, 1, 100.9, told=False, log=log, error_file=error_file)
    killed = ended(1, -9, 100.2)
    assert (late.exception, late.t_s) == ("ValueError: late", 100.9)
    first = first_failure([late, killed])
    assert first is not None
    assert first.rank == 1
    long_before = read_exit(0, 1, 107.0, told=False, log=log, error_file=error_file)
    first = first_failure([long_before, ended(1, 1, 103.0)])
    assert first is not None
    assert (first.rank, first.t_s) == (0, 101.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "exit code 3"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-signal.SIGKILL, "killed by SIGKILL; out of memory, or killed from outside"),
        (-99, "killed by signal 99"),
    ],
)
def test_an_exit_in_words(code: int, words: str) -> None:
    """An exit without an exception is said as a person would."""
    assert describe_exit(code) == words
