"""Agents in the background that a failed test left behind."""

import os
import signal
from pathlib import Path

from tradewind.agent.lock import is_held
from tradewind.store import home, open_store


def kill_agents() -> None:
    """End every agent that holds a run of this test's home; its workers die with it."""
    if not (home() / "store.db").exists():
        return
    with open_store() as store:
        for run in store.runs():
            if run.pid and run.pid != os.getpid() and is_held(Path(run.dir)):
                os.kill(run.pid, signal.SIGKILL)
