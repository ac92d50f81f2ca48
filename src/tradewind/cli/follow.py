"""Printing a run's logs, once or as they grow."""

import contextlib
import os
import selectors
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tradewind.agent.journal import LineTail
from tradewind.agent.watch import FolderWatch
from tradewind.errors import NotFoundError, TradewindError
from tradewind.names import LOGS_DIR

if TYPE_CHECKING:
    from tradewind.store import Run, Store


def attempt_folders(run: "Run") -> list[Path]:
    """The log folders of a run's attempts, oldest first."""
    return sorted(Path(run.dir, LOGS_DIR).glob("attempt*"), key=lambda p: int(p.name[7:]))


def log_files(run: "Run", rank: int | None, attempt: int | None) -> list[Path]:
    """The logs of one attempt (the last by default), by rank."""
    folders = [f for f in attempt_folders(run) if attempt is None or is_of(f, attempt)]
    return rank_logs(folders[-1], rank) if folders else []


def is_of(folder: Path, attempt: int) -> bool:
    """Whether this folder holds the logs of that attempt."""
    return folder.name == f"attempt{attempt}"


def rank_logs(folder: Path, rank: int | None) -> list[Path]:
    """The logs in one attempt's folder, by rank."""
    files = sorted(folder.glob("rank*.log"), key=lambda p: int(p.stem[4:]))
    return [f for f in files if rank is None or f.stem == f"rank{rank}"]


def print_logs(run: "Run", store: "Store", rank: int | None, attempt: int | None) -> None:
    """Print logs, after the first failure of the run.

    Raises NotFoundError when there is no such log.
    """
    from tradewind.cli.live import describe_event

    failures = [e for e in store.events(run.id, kind="failure") if attempt in (None, e.attempt)]
    for failure in failures[:1]:
        print(describe_event(failure))
        print()
    files = log_files(run, rank, attempt)
    if not files:
        raise NotFoundError(f"run {run.id} has no log of rank {rank} in attempt {attempt} under {run.dir}")
    for file in files:
        for line in LineTail(file).read(last=True):
            print_line(file, line, alone=rank is not None)


def follow_logs(run: "Run", rank: int | None, attempt: int | None) -> None:
    """Print logs as they grow, from the last attempt on, until the run's agent ends.

    Raises TradewindError when the run was never started.
    """
    if run.pid is None:
        raise TradewindError(f"run {run.id} has not been started, so it has no logs yet")
    root = Path(run.dir, LOGS_DIR)
    root.mkdir(exist_ok=True)
    earlier = attempt_folders(run)[:-1]
    tails: dict[Path, LineTail] = {}
    with FolderWatch() as files:
        files.add(root)
        for ended in wakes(run.pid, files):
            folders = attempt_folders(run)
            for folder in folders:
                files.add(folder)
            wanted = (f for f in folders if (f not in earlier if attempt is None else is_of(f, attempt)))
            for file in [log for folder in wanted for log in rank_logs(folder, rank)]:
                for line in tails.setdefault(file, LineTail(file)).read(last=ended):
                    print_line(file, line, alone=rank is not None)


def wakes(pid: int, files: FolderWatch) -> Iterator[bool]:
    """False now and whenever a watched file was written; True, as the last, once the process has ended."""
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(files.fd, selectors.EVENT_READ, "files")
        ended = True
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            selector.register(pidfd, selectors.EVENT_READ, "end")
            ended = False
        while not ended:
            yield False
            ended = any(key.data == "end" for key, _ in selector.select())
            files.drain()
        yield True


def print_line(file: Path, line: bytes, alone: bool) -> None:
    """One line of a log, after its rank unless only one rank is asked for."""
    text = line.decode(errors="replace")
    print(text if alone else f"[{file.stem}] {text}", flush=True)
