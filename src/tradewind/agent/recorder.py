"""From what ranks journal and the agent sees to rows of the store, written a batch at a time."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind.errors import StoreError

if TYPE_CHECKING:
    from tradewind.diagnose.first_failure import Failure
    from tradewind.store import Store

_STORED = frozenset({"start", "resume", "checkpoint", "damaged", "warning", "preempt", "ledger", "end"})


class Progress(msgspec.Struct, kw_only=True):
    """What a person watching a run wants to know now."""

    state: str = "pending"
    attempt: int = 0
    steps: dict[int, int] = {}
    """Rank -> the last step it committed."""
    metrics: dict[str, float] = {}
    checkpoint: int | None = None
    failure: "Failure | None" = None
    recovered_s: float | None = None

    @property
    def step(self) -> int | None:
        """The step that every rank that reports has committed."""
        return min(self.steps.values()) if self.steps else None


class Recorder:
    """Collects events and metrics of one run; `flush` writes them, in order, in few transactions."""

    def __init__(self, run: str, store: "Store") -> None:
        self.run = run
        self.store = store
        self.progress = Progress()
        self.dirty = False
        self._attempt = 0
        self._writes: list[Callable[[], object]] = []
        self._events: list[Any] = []
        self._metrics: list[Any] = []
        self._last_step: dict[int, tuple[int, float]] = {}
        self._stepped: set[int] = set()
        self._reached: dict[int, int] = {}
        self._failed_s: float | None = None
        self._lost_s: float | None = None

    def attempt_started(self, index: int, t_s: float, data: dict[str, Any]) -> None:
        """A new attempt's workers were just started."""
        from tradewind.store import Attempt

        self._attempt = index
        self._stepped.clear()
        attempt = Attempt(
            run=self.run,
            index=index,
            state="running",
            started_s=t_s,
            ended_s=None,
            exit_code=None,
            reason="",
        )
        self._writes.append(lambda: self.store.add_attempt(attempt))
        self.progress.state = "running"
        self.progress.attempt = index
        self.event("attempt_started", t_s=t_s, data=data)

    def attempt_ended(self, state: str, exit_code: int, reason: str) -> None:
        """Every worker of the attempt has ended."""
        now, index = time.time(), self._attempt
        for rank in sorted(self._stepped):
            step, t_s = self._last_step[rank]
            self.event("step", rank=rank, t_s=t_s, data={"step": step, "last": True})
            self._reached[rank] = max(step, self._reached.get(rank, 0))
        self._writes.append(
            lambda: self.store.update_attempt(
                self.run, index, state=state, ended_s=now, exit_code=exit_code, reason=reason
            )
        )

    def failure(self, failure: "Failure", seen_s: float) -> None:
        """The attempt's first failure, as the agent saw it at `seen_s`."""
        self._failed_s = seen_s
        self.progress.failure = failure
        self.progress.state = "recovering"
        step = self._last_step.get(failure.rank)
        self.event(
            "failure",
            rank=failure.rank,
            t_s=seen_s,
            data={
                "raised_s": failure.t_s,
                "class": failure.kind,
                "exception": failure.exception,
                "text": failure.text,
                "exit_code": failure.exit_code,
                "last_step": step[0] if step else None,
                "last_step_t_s": step[1] if step else None,
            },
        )

    def event(
        self,
        kind: str,
        *,
        rank: int | None = None,
        t_s: float | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Queue one event of the current attempt."""
        from tradewind.store import Event

        self.dirty = True
        self._events.append(
            Event(
                run=self.run,
                attempt=self._attempt,
                rank=rank,
                t_s=time.time() if t_s is None else t_s,
                kind=kind,
                data=data or {},
            )
        )

    def journal(self, rank: int, entry: dict[str, Any]) -> None:
        """Take in one entry of a rank's journal."""
        kind, t_s = entry["kind"], float(entry["t"])
        if kind == "step":
            self._step(rank, int(entry["step"]), t_s)
        elif kind == "metric":
            self._metric(rank, entry, t_s)
        elif kind in _STORED:
            data = {key: value for key, value in entry.items() if key not in ("t", "kind")}
            self.event(kind, rank=rank, t_s=t_s, data=data)
            if kind == "checkpoint":
                self.progress.checkpoint = int(entry.get("step", 0))

    def _step(self, rank: int, step: int, t_s: float) -> None:
        self.dirty = True
        if rank not in self._stepped:
            self._stepped.add(rank)
            self.event("step", rank=rank, t_s=t_s, data={"step": step})
            if self._failed_s is not None:
                self.progress.recovered_s = t_s - self._failed_s
                self.event(
                    "recovered", rank=rank, t_s=t_s, data={"seconds": t_s - self._failed_s, "step": step}
                )
                self._failed_s = None
        if step >= self._reached.get(rank, step + 1) and self._reached.pop(rank) == step:
            self.event("caught_up", rank=rank, t_s=t_s, data={"step": step})
        self._last_step[rank] = (step, t_s)
        self.progress.steps[rank] = step

    def _metric(self, rank: int, entry: dict[str, Any], t_s: float) -> None:
        from tradewind.store import Metric

        self.dirty = True
        name, value = str(entry["name"]), float(entry["value"])
        self._metrics.append(
            Metric(
                run=self.run,
                attempt=self._attempt,
                rank=rank,
                step=int(entry["step"]),
                name=name,
                value=value,
                t_s=t_s,
            )
        )
        if rank == 0:
            self.progress.metrics[name] = value

    def flush(self) -> None:
        """Write everything queued so far; what the store cannot take now is kept for the next time."""
        try:
            self._write()
            if self._lost_s is not None:
                self.event("store_lost", t_s=self._lost_s, data={"seconds": time.time() - self._lost_s})
                self._lost_s = None
                self._write()
        except StoreError as error:
            if self._lost_s is None:
                self._lost_s = time.time()
                print(f"tradewind: {error}; the run goes on, and is recorded once it does", file=sys.stderr)
            return
        self.dirty = False

    def _write(self) -> None:
        while self._writes:
            self._writes[0]()
            del self._writes[0]
        if self._events:
            self.store.add_events(self._events)
            self._events = []
        if self._metrics:
            self.store.add_metrics(self._metrics)
            self._metrics = []
