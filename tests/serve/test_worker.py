"""Loading beside those who serve: a step back while it lasts, none while serving."""

import argparse
import asyncio
import os
import pathlib
import sys
import threading

import pytest
import torch

from tests.serve.test_execution import options
from tradewind.serve import worker
from tradewind.serve.execution import Pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own")


def priority() -> int:
    """Of this thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def state() -> tuple[int, bool, int]:
    return priority(), torch.is_inference_mode_enabled(), torch.get_num_threads()


def asked(model: str, **more: object) -> argparse.Namespace:
    return argparse.Namespace(model=model, threads=3, **{"gently": True, **more})


def test_loading_steps_back_and_serving_does_not():
    """The work has a thread of its own; the one that serves afterwards has the priority that it had."""
    before = state()
    assert worker._aside(asked("package"), state) == (min(19, priority() + worker.NICE), True, 3)
    assert state() == before


@pytest.mark.parametrize("args", [asked("model.py:Model"), asked("package", gently=False)])
def test_a_users_class_is_made_on_the_thread_that_calls_it(args):
    """And nobody steps back who disturbs no one."""
    assert worker._aside(args, threading.get_ident) == threading.get_ident()
    assert worker._aside(args, priority) == priority()


def test_what_cannot_be_loaded_says_so_from_there_too():
    """The error is that of the work."""
    with pytest.raises(ValueError, match="no such thing"):
        worker._aside(asked("package"), _fail)


def _fail() -> None:
    raise ValueError("no such thing")


def test_the_first_worker_loads_at_once_and_a_spare_beside_it_gently(generic):
    """Both serve at the same priority."""

    async def scenario() -> list[tuple[bool, int]]:
        changed = asyncio.Event()
        pool = Pool(options(generic), 1, 1, changed.set)
        try:
            await pool.start()
            (first,) = pool.processes
            while pool.size < 2:
                await changed.wait()
                changed.clear()
            others = [pid for pid in pool.processes if pid != first]
            return [_loaded(pid) for pid in (first, *others)]
        finally:
            await pool.close()

    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert asyncio.run(scenario()) == [(False, own), (True, own)]


def _loaded(pid: int) -> tuple[bool, int]:
    command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"--gently" in command, os.getpriority(os.PRIO_PROCESS, pid)
