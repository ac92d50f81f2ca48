"""What a foreground run shows: rank 0's output, one line of state, and the first failure."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tradewind.agent.journal import LineTail

if TYPE_CHECKING:
    from tradewind.agent import Job, Outcome, Progress
    from tradewind.diagnose.first_failure import Failure
    from tradewind.store import Event, Run

_PLAIN_EVERY_S = 10.0


class Watcher:
    """Called with a run's progress; prints to stdout what rank 0 says and to stderr how the run does."""

    def __init__(self, job: "Job", run: "Run", quiet: bool = False) -> None:
        self.job = job
        self.run = run
        self.quiet = quiet
        self._attempt = -1
        self._tail: LineTail | None = None
        self._failure: Failure | None = None
        self._told_s = 0.0
        self._line = ""
        self._live: Any = None

    def __enter__(self) -> "Watcher":
        if not self.quiet:
            print(f"run {self.run.id} ({self.run.name}), {self.job.workers} workers", file=sys.stderr)
            if sys.stderr.isatty():
                from rich.console import Console
                from rich.live import Live

                self._live = Live(console=Console(stderr=True), refresh_per_second=8, transient=True)
                self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)
            self._live = None

    def __call__(self, progress: "Progress") -> None:
        """Show what changed."""
        if self.quiet:
            return
        self._echo(progress.attempt)
        if progress.failure is not None and progress.failure is not self._failure:
            self._failure = progress.failure
            print(describe(progress.failure), file=sys.stderr, flush=True)
        self._status(progress)

    def _echo(self, attempt: int, last: bool = False) -> None:
        """Print rank 0's new output."""
        if attempt != self._attempt:
            self._print(self._tail.read(last=True) if self._tail else [])
            self._attempt = attempt
            self._tail = LineTail(self.job.log(attempt, 0))
        if self._tail:
            self._print(self._tail.read(last=last))

    def _print(self, lines: list[bytes]) -> None:
        for line in lines:
            print(line.decode(errors="replace"), flush=True)

    def _status(self, progress: "Progress") -> None:
        line = status_line(progress)
        if self._live:
            self._live.update(line)
        elif line != self._line and (
            time.monotonic() - self._told_s > _PLAIN_EVERY_S or line.split()[0] != self._line.split(" ")[0]
        ):
            print(f"[{line}]", file=sys.stderr, flush=True)
            self._told_s, self._line = time.monotonic(), line

    def conclude(self, outcome: "Outcome") -> None:
        """The last words: how the run ended and where to look."""
        self._echo(max(self._attempt, 0), last=True)
        print(f"run {self.run.id} {outcome.state}: {outcome.reason}", file=sys.stderr)
        if outcome.state == "failed" and outcome.failure:
            print(describe(outcome.failure), file=sys.stderr)
            print(f"logs: tradewind logs {self.run.id} --rank {outcome.failure.rank}", file=sys.stderr)


def status_line(progress: "Progress") -> str:
    """State, step, metrics and checkpoint of a run in one line."""
    parts = [progress.state, f"attempt {progress.attempt}"]
    if progress.step is not None:
        parts.append(f"step {progress.step}")
    parts += [f"{name} {value:.4g}" for name, value in list(progress.metrics.items())[:4]]
    if progress.checkpoint is not None:
        parts.append(f"checkpoint {progress.checkpoint}")
    if progress.recovered_s is not None:
        parts.append(f"recovered in {progress.recovered_s:.1f} s")
    return "  ".join(parts)


def describe(failure: "Failure") -> str:
    """The first failure as a person reads it: who, what, and the end of its traceback."""
    lines = [f"first failure: rank {failure.rank} ({failure.kind}): {failure.exception}"]
    lines += [f"  | {line}" for line in failure.text.splitlines()[-12:]]
    return "\n".join(lines)


def describe_event(event: "Event") -> str:
    """A stored failure as a person reads it."""
    head = f"first failure: attempt {event.attempt} rank {event.rank} ({event.data.get('class')})"
    lines = [f"{head}: {event.data.get('exception', '')}"]
    lines += [f"  | {line}" for line in str(event.data.get("text", "")).splitlines()[-12:]]
    return "\n".join(lines)
