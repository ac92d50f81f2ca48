"""Looking into real workers that are stuck."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.services.ports import free_port
from tests.train.workers import environment
from tradewind.diagnose import stacks

HOLD_THE_GIL = """
import ctypes, sys
from pathlib import Path
from tradewind.train.stacks import dump_on_signal

def holds_it():
    print("ready", flush=True)
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)

dump_on_signal(Path(sys.argv[1]) / "old.txt")
dump_on_signal(Path(sys.argv[1]) / "stacks.txt")
holds_it()
"""

STUCK_GROUP = """
import sys
from pathlib import Path
import torch, torch.distributed as dist
from tradewind import train
from tradewind.train.stacks import dump_on_signal, serve_debug

folder = Path(sys.argv[1])
with train.distributed() as ctx:
    dump_on_signal(folder / f"stacks{ctx.rank}.txt")
    assert serve_debug(folder / f"debug{ctx.rank}")
    total = torch.ones(4)
    dist.all_reduce(total)
    wait = dist.Work.wait

    def waits(work):
        print("entered", flush=True)
        return wait(work)

    print("ready", flush=True)
    if ctx.rank == 0:
        dist.Work.wait = waits
    else:
        sys.stdin.readline()
    dist.all_reduce(total)
    print(total.tolist(), flush=True)
"""


@contextmanager
def worker(
    script: str, folder: Path, rank: int = 0, world: int = 1, port: int = 0
) -> Iterator["subprocess.Popen[str]"]:
    """A training process that has said it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        env=environment(rank, world, port),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process that holds the GIL in a C call for good, and the folder it dumps to."""
    folder = tmp_path_factory.mktemp("stuck")
    with worker(HOLD_THE_GIL, folder) as process:
        assert say(process) == "ready"
        yield process, folder


@contextmanager
def stopped(process: "subprocess.Popen[str]") -> Iterator[None]:
    """While this lasts the process is stopped."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    yield
    process.send_signal(signal.SIGCONT)


def test_stacks_are_written_while_c_code_holds_the_gil(stuck: tuple["subprocess.Popen[str]", Path]) -> None:
    """A signal brings all Python stacks out of a process whose main thread sits in C and keeps the GIL."""
    process, folder = stuck
    for _ in range(2):
        found = stacks.python_stacks(process.pid, folder / "stacks.txt", timeout_s=20)
        assert found is not None
        assert found.count("in holds_it") == 1
    assert (folder / "old.txt").read_bytes() == b""


def test_a_stopped_process_is_not_waited_for(stuck: tuple["subprocess.Popen[str]", Path]) -> None:
    """A process that is stopped gives None in time, and writes its stacks when it goes on."""
    process, folder = stuck
    size = (folder / "stacks.txt").stat().st_size
    with stopped(process):
        assert stacks.python_stacks(process.pid, folder / "stacks.txt", timeout_s=0.2) is None
    assert stacks.written(folder / "stacks.txt", size, 20)


def test_nobody_answers_for_a_process_that_is_gone(tmp_path: Path) -> None:
    """Questions to a process that has ended, or to a socket that is not there, give None."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert stacks.python_stacks(process.pid, tmp_path / "stacks.txt", timeout_s=0.2) is None
    assert stacks.native_stacks(process.pid) is None
    assert stacks.collectives(tmp_path / "nobody") is None


@pytest.mark.slow
def test_a_stuck_group_says_who_is_missing_and_goes_on_unharmed(tmp_path: Path) -> None:
    """In a gloo group the rank that did not enter the collective is named, and looking disturbs nobody."""
    port = free_port()
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(STUCK_GROUP, tmp_path, r, 2, port)) for r in range(2)]
        assert [say(process) for process in workers] == ["ready", "ready"]
        assert say(workers[0]) == "entered"
        dump = stacks.python_stacks(workers[0].pid, tmp_path / "stacks0.txt", timeout_s=20)
        served = stacks.ask(tmp_path / "debug0", "dump_traceback", timeout_s=20)
        seen = {rank: stacks.collectives(tmp_path / f"debug{rank}", timeout_s=20) for rank in range(2)}
        workers[1].stdin.write("go\n")  # type: ignore[union-attr]
        workers[1].stdin.flush()  # type: ignore[union-attr]
        assert [say(process) for process in workers] == ["[4.0, 4.0, 4.0, 4.0]"] * 2
        assert [process.wait(60) for process in workers] == [0, 0]
    assert dump is not None
    assert "in all_reduce" in dump
    assert served is not None
    assert b"in all_reduce" in served
    assert stacks.missing({rank: states or [] for rank, states in seen.items()}) == (1,)
    [waiting] = seen[0] or []
    assert (waiting.entered, waiting.completed, waiting.last) == (2, 1, "gloo:all_reduce")


def test_none_is_missing_when_all_have_entered() -> None:
    """Ranks as far as each other, in as many groups, are all present; one behind in any group is missing."""
    at = [stacks.Collectives(group=group, entered=5, completed=4) for group in ("0", "1")]
    behind = [at[0], stacks.Collectives(group="1", entered=4, completed=4)]
    assert stacks.missing({0: at, 1: at}) == ()
    assert stacks.missing({0: at, 1: behind, 2: at}) == (1,)
    assert stacks.missing({}) == ()


def test_native_stacks_show_python_and_c_frames(stuck: tuple["subprocess.Popen[str]", Path]) -> None:
    """py-spy shows the Python function and the C call in it, and the Python function of a stopped process."""
    if shutil.which("py-spy") is None:
        pytest.skip("NATIVE STACKS ARE NOT TESTED: py-spy is not installed (pip install 'tradewind[ops]')")
    process, _ = stuck
    found = stacks.native_stacks(process.pid, timeout_s=60)
    assert found is not None
    if "ermission" in found:
        pytest.skip("NATIVE STACKS ARE NOT TESTED: this kernel forbids to trace other processes")
    frames = found.partition("Thread ")[2].split()
    assert frames.index("read") < frames.index("holds_it")
    with stopped(process):
        assert "holds_it" in (stacks.native_stacks(process.pid, timeout_s=60) or "").partition("Thread ")[2]


def test_native_stacks_without_py_spy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where py-spy is not installed there is no native stack, and no error."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert stacks.native_stacks(os.getpid()) is None
