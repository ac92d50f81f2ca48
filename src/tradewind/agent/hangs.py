"""Looks at a group's workers now and then, and says when it hangs and who holds it up."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from tradewind.agent.group import Group
from tradewind.agent.job import Job
from tradewind.agent.worker import LocalWorker, Worker
from tradewind.diagnose.hang import STOPPED, Hang, HangDetector, Limits
from tradewind.diagnose.stacks import collectives, python_stacks

PATIENT = Limits(silent_s=60.0, unknown_s=120.0, behind_s=1800.0)
"""A step of a stranger's script may evaluate, or wait for storage, and ending it is no small thing: only a
process that is stopped is judged within seconds."""


class HangWatch:
    """Feeds a `HangDetector` from journals, status pages and `/proc`; times are `time.time()`.

    A group is watched once each of its ranks has made a loop: a script without one gives no signs. One that follows on
    such a group is watched from its beginning, in case it never comes together.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.look_at: float | None = None
        """When to look next, on the monotonic clock; None while there is nothing to look at."""
        self._detector = HangDetector((), time.time(), PATIENT)
        self._group: Group | None = None
        self._started: set[int] = set()
        self._loops = False
        """Every rank of some group had a loop."""
        self._phases: dict[int, str] = {}
        self._done: set[int] = set()

    def begin(self, group: Group, step: int) -> None:
        """Watch a new group, which goes on after `step`."""
        self._group, self.look_at = group, None
        self._started.clear()
        self._phases.clear()
        self._done.clear()
        self._detector.renew(range(group.size), time.time(), step)
        if self._loops:
            self._look_later()

    def journal(self, rank: int, entry: dict[str, Any]) -> None:
        """Take in one entry of a rank's journal."""
        if entry["kind"] == "step":
            self._detector.observe(rank, int(entry["step"]), float(entry["t"]))
        elif entry["kind"] == "start" and self._group is not None:
            if rank in self._done:  # Another loop of the same script.
                self._done.remove(rank)
                self._detector.join(rank, time.time())
            self._started.add(rank)
            if len(self._started) == self._group.size:
                self._loops = True
                self._look_later()
        elif entry["kind"] == "end":
            self._done.add(
                rank
            )  # What a script does after its loop, packaging say, takes as long as it takes.
            self._detector.leave(rank)

    def _look_later(self) -> None:
        self.look_at = time.monotonic() + self._detector.look_every_s()

    def look(self) -> Hang | None:
        """Look at every worker; the hang, if there is one by now."""
        due = self.look_at or time.monotonic()
        late_s = time.monotonic() - due
        if late_s > 1.0:
            self._detector.excuse(late_s)  # This process did not get to run either.
        now = time.time()
        for worker in self._at_work():
            self._look_at(worker, now)
        self._look_later()
        return self.overdue()

    def overdue(self) -> Hang | None:
        """The hang, if by all that is known there is one."""
        return self._detector.overdue(time.time())

    def stop(self) -> None:
        """Look no more at this group."""
        self.look_at = None

    def _at_work(self) -> Iterable[Worker]:
        at_work = (w for w in self._group or () if w.running and not w.parked)
        return [w for w in at_work if w.rank not in self._done]

    def _look_at(self, worker: Worker, now: float) -> None:
        sign = worker.sign()
        if sign is None:
            return
        self._detector.look(worker.rank, now, sign.state, sign.cpu_s)
        if sign.phase and sign.phase != self._phases.get(worker.rank):
            self._phases[worker.rank] = sign.phase
            self._detector.enter(worker.rank, sign.phase, now)

    def evidence(self) -> dict[str, Any]:
        """Stacks (as files) and entered collectives of every worker of this host that still answers."""
        return evidence(self.job, [worker for worker in self._at_work() if isinstance(worker, LocalWorker)])


def evidence(job: Job, workers: Iterable[LocalWorker]) -> dict[str, Any]:
    """What those of these workers that are not stopped are in the middle of."""
    asked = [worker for worker in workers if not is_stopped(worker)]
    if not asked:
        return {"stacks": {}, "collectives": {}}
    paths = [job.stacks(w.place.attempt, w.rank) for w in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        stacks = list(pool.map(lambda w, path: python_stacks(w.pid, path), asked, paths))
        entered = list(pool.map(lambda w: collectives(job.debug_socket(w.rank)), asked))
    return {
        "stacks": {w.rank: str(path) for w, path, found in zip(asked, paths, stacks, strict=True) if found},
        "collectives": {
            w.rank: msgspec.to_builtins(found) for w, found in zip(asked, entered, strict=True) if found
        },
    }


def is_stopped(worker: Worker) -> bool:
    """Whether it can answer nothing, being stopped."""
    sign = worker.sign()
    return sign is None or sign.state == STOPPED
