"""Printing a run's logs, once or as they grow."""

import contextlib
import os
import selectors
from pathlib import Path
from typing import TYPE_CHECKING

from tradewind.agent.journal import LineTail
from tradewind.agent.watch import FolderWatch
from tradewind.errors import NotFoundError
from tradewind.names import LOGS_DIR

if TYPE_CHECKING:
    from tradewind.store import Run, Store


def log_files(run: "Run", rank: int | None, attempt: int | None) -> list[Path]:
    """The logs of one attempt (the last by default), by rank."""
    folders = sorted(Path(run.dir, LOGS_DIR).glob("attempt*"), key=lambda p: int(p.name[7:]))
    if attempt is not None:
        folders = [f for f in folders if f.name == f"attempt{attempt}"]
    files = sorted(folders[-1].glob("rank*.log"), key=lambda p: int(p.stem[4:])) if folders else []
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
    """Print logs as they grow, through every attempt, until the run's agent ends."""
    tails: dict[Path, LineTail] = {}
    seen: set[Path] = set()
    with selectors.DefaultSelector() as selector, FolderWatch() as files, contextlib.ExitStack() as stack:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(run.pid or 0)
            stack.callback(os.close, pidfd)
            selector.register(pidfd, selectors.EVENT_READ, "end")
        selector.register(files.fd, selectors.EVENT_READ, "files")
        root = Path(run.dir, LOGS_DIR)
        root.mkdir(exist_ok=True)
        files.add(root)
        ended = len(selector.get_map()) == 1
        while True:
            for folder in set(root.glob("attempt*")) - seen:
                seen.add(folder)
                files.add(folder)
            read_new(run, rank, attempt, tails, last=ended)
            if ended:
                return
            ended = any(key.data == "end" for key, _ in selector.select())
            files.drain()


def read_new(
    run: "Run", rank: int | None, attempt: int | None, tails: dict[Path, LineTail], last: bool
) -> None:
    """Print what was appended to any log since the last call."""
    for file in log_files(run, rank, attempt):
        tails.setdefault(file, LineTail(file))
    for file, tail in tails.items():
        for line in tail.read(last=last):
            print_line(file, line, alone=rank is not None)


def print_line(file: Path, line: bytes, alone: bool) -> None:
    """One line of a log, after its rank unless only one rank is asked for."""
    text = line.decode(errors="replace")
    print(text if alone else f"[{file.stem}] {text}", flush=True)
