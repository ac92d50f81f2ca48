"""Whether a group of workers hangs, and which rank is guilty.

Time alone cannot tell a hang from a slow step: a checkpoint, an evaluation or a garbage collection
makes one step in two hundred ten times longer, while a stopped worker should be noticed within three
step times. So patience depends on the evidence, from the strongest down:

1. *Stopped.* A rank in scheduler state `T` (job control stopped it) does nothing whatever the step is.
   Patience is 0.65 of max(1 s, 3 x p95); with the looks of `look_every_s` that stays inside max(1 s, 3 x p99),
   because p95 is not above p99 and is not moved by slow steps as long as they are fewer than 5%.
   A slow step never enters this state, so this short deadline costs no false alarm.
2. *Silent.* A rank that has not arrived where the others wait, and whose process burns no CPU: a lock,
   a dead mount, a frozen container. A slow step that waits for storage looks alike, so patience is
   above what such a step takes: max(5 s, 20 x median, 3 x longest step seen). The median is blind to
   rare slow steps; the longest one teaches what this run's own are like.
3. *Unknown.* No process could be looked at, or all wait in a collective and nobody is missing.
4. *Behind.* A rank that has not arrived and works: it may be compiling or evaluating, so it gets minutes.

Slow phases that the worker declares (startup, restore, checkpoint, evaluation) have allowances of
their own, which hold for the whole group, and are left out of the statistic. Until a few steps are
known, the startup allowance holds. A stopped rank is a hang in every phase.

The guilty are the ranks with the strongest evidence; among equals, those that have not arrived in the
collective in which others wait; among those, the ones with the fewest steps. In a synchronous group
the others stall in the same step, so "slowest" alone would name everyone.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from tradewind.diagnose.step_times import StepTimes

WAITING = "communication"
"""The phase of a rank that has arrived at a collective and waits for the others."""
STOPPED = "T"
"""Scheduler state of a stopped process; `t`, stopped by a debugger, is a person's doing and no hang."""


class Evidence(StrEnum):
    """What speaks for a hang, strongest first."""

    STOPPED = "stopped"
    SILENT = "silent"
    UNKNOWN = "unknown"
    BEHIND = "behind"


PHASES_S = {
    "startup": 600.0,
    "restore": 600.0,
    "checkpoint_stall": 600.0,
    "evaluation": 600.0,
    "other": 600.0,
    "data_wait": 60.0,
}
"""Least patience while a rank is in a phase; others, as `compute`, have none."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Patience in seconds, and multiples of what was learnt."""

    floor_s: float = 1.0
    """A stopped rank is never reported earlier than 0.65 of this, however short the steps."""
    stopped_steps: float = 3.0
    untaught_stopped_s: float = 5.0
    """A rank stopped before any step time is known."""
    silent_s: float = 5.0
    unknown_s: float = 30.0
    behind_s: float = 300.0
    slow_medians: float = 20.0
    slow_longest: float = 3.0
    learn_steps: int = 8
    """Steps that must have been timed before anything but a stopped rank is judged by them."""
    idle_share: float = 0.02
    """CPU seconds a second up to which a process is idle; helper threads tick."""
    phases_s: Mapping[str, float] = msgspec.field(default_factory=lambda: dict(PHASES_S))


DECLARED = frozenset({"startup", "restore", "checkpoint_stall", "evaluation"})
"""Phases that make a step untypical."""


class Hang(msgspec.Struct, frozen=True, kw_only=True):
    """A group that does not move, and who holds it up."""

    ranks: tuple[int, ...]
    step: int
    """The step that the guilty have not completed."""
    since_s: float
    """When the guilty gave their last sign, or were first seen stopped."""
    deadline_s: float
    """How long was waited after that."""
    evidence: Evidence
    reason: str


class Rank:
    """What is known of one rank."""

    def __init__(self, t_s: float, step: int) -> None:
        self.step = step
        self.phase = "startup"
        self.sign_s = t_s
        self.stopped_s: float | None = None
        self.active_s: float | None = None
        """When its process was last seen to have burnt CPU; None when it was never looked at."""
        self._cpu_s = 0.0

    def sign(self, t_s: float) -> None:
        """It completed a step or changed its phase."""
        self.sign_s = max(self.sign_s, t_s)

    def look(self, t_s: float, state: str, cpu_s: float, idle_share: float) -> None:
        """What the scheduler says of its process."""
        if state != STOPPED:
            self.stopped_s = None
        elif self.stopped_s is None:
            self.stopped_s = t_s
        if self.active_s is None or cpu_s - self._cpu_s > idle_share * (t_s - self.active_s) + 0.01:
            self.active_s, self._cpu_s = t_s, cpu_s

    def shift(self, seconds: float) -> None:
        """Forget that these seconds passed."""
        self.sign_s += seconds
        if self.stopped_s is not None:
            self.stopped_s += seconds
        if self.active_s is not None:
            self.active_s += seconds


class HangDetector:
    """Told what ranks do, and asked now and then whether they hang. All times are of one clock."""

    def __init__(self, ranks: Iterable[int], now_s: float, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.times = StepTimes()
        self._ranks = {rank: Rank(now_s, 0) for rank in ranks}
        self._typical = True

    def observe(self, rank: int, step: int, t_s: float) -> None:
        """This rank completed this step."""
        if self.times.complete(step, t_s, typical=self._typical):
            self._typical = True
        state = self._ranks[rank]
        state.step = step
        if state.phase == "startup":
            state.phase = "compute"
        state.sign(t_s)

    def enter(self, rank: int, phase: str, t_s: float) -> None:
        """This rank went over to a phase: a bucket of the step ledger, or `evaluation`."""
        state = self._ranks[rank]
        state.phase = phase
        state.sign(t_s)
        if phase in DECLARED:
            self._typical = False

    def look(self, rank: int, t_s: float, state: str, cpu_s: float) -> None:
        """What `read_process` found of this rank's process."""
        self._ranks[rank].look(t_s, state, cpu_s, self.limits.idle_share)

    def join(self, rank: int, now_s: float) -> None:
        """A rank that has left is at work again."""
        self._ranks[rank] = Rank(now_s, 0)

    def leave(self, rank: int) -> None:
        """This rank has ended: its exit says more than its silence."""
        self._ranks.pop(rank, None)

    def renew(self, ranks: Iterable[int], now_s: float, step: int = 0) -> None:
        """A new generation of the group begins after `step`; what was learnt of step times stays."""
        self._ranks = {rank: Rank(now_s, step) for rank in ranks}
        self._typical = True
        self.times.interrupt()

    def excuse(self, seconds: float) -> None:
        """The whole machine, and so the asker too, stood still for this long: nobody is guilty of it."""
        self.times.interrupt()
        for state in self._ranks.values():
            state.shift(seconds)

    def look_every_s(self) -> float:
        """How often to look at the processes and ask: seldom, and often once one is stopped.

        With the patience for a stopped rank a stop is reported within 0.95 of the bound, whenever it comes.
        """
        stopped = any(state.stopped_s is not None for state in self._ranks.values())
        return self.stopped_bound_s / (20 if stopped else 4)

    @property
    def stopped_bound_s(self) -> float:
        """Within this a stopped rank is reported: max(1 s, 3 x p95), or a fixed time before p95 is known."""
        limits = self.limits
        if len(self.times) < limits.learn_steps:
            return limits.untaught_stopped_s
        return max(limits.floor_s, limits.stopped_steps * self.times.quantile(0.95))

    def patience_s(self, evidence: Evidence) -> float:
        """How long to wait for a sign, given the evidence against a rank."""
        limits = self.limits
        if evidence is Evidence.STOPPED:
            return 0.65 * self.stopped_bound_s
        floors = {Evidence.SILENT: limits.silent_s, Evidence.UNKNOWN: limits.unknown_s}
        slow = max(limits.slow_medians * self.times.quantile(0.5), limits.slow_longest * self.times.longest)
        return max(floors.get(evidence, limits.behind_s), slow, self._allowance_s())

    def _allowance_s(self) -> float:
        """What declared phases grant the whole group now."""
        phases_s = self.limits.phases_s
        untaught = phases_s["startup"] if len(self.times) < self.limits.learn_steps else 0.0
        return max([untaught, *(phases_s.get(state.phase, 0.0) for state in self._ranks.values())])

    def overdue(self, now_s: float) -> Hang | None:
        """The hang that there is by now, if any."""
        patience_s = self.patience_s(Evidence.STOPPED)
        stopped = {r: s for r, s in self._ranks.items() if s.stopped_s is not None}
        guilty = {r: s for r, s in stopped.items() if now_s - (s.stopped_s or 0.0) >= patience_s}
        if guilty:
            since_s = min(s.stopped_s or 0.0 for s in guilty.values())
            return self._hang(guilty, Evidence.STOPPED, since_s, patience_s)
        missing = {r: s for r, s in self._ranks.items() if s.phase != WAITING} or self._ranks
        for evidence in (Evidence.SILENT, Evidence.UNKNOWN, Evidence.BEHIND):
            patience_s = self.patience_s(evidence)
            guilty = {r: s for r, s in missing.items() if self._fits(s, evidence, patience_s, now_s)}
            if guilty:
                return self._hang(guilty, evidence, min(s.sign_s for s in guilty.values()), patience_s)
        return None

    def _fits(self, state: Rank, evidence: Evidence, patience_s: float, now_s: float) -> bool:
        """Whether this rank has given no sign for longer than this evidence against it asks for."""
        if now_s - state.sign_s < patience_s:
            return False
        if evidence is Evidence.SILENT:
            idle = state.active_s is not None and now_s - state.active_s >= 0.8 * patience_s
            return idle and not self._everyone_waits
        if evidence is Evidence.UNKNOWN:
            return state.active_s is None or self._everyone_waits
        return True

    @property
    def _everyone_waits(self) -> bool:
        return all(state.phase == WAITING for state in self._ranks.values())

    def _hang(
        self, guilty: Mapping[int, Rank], evidence: Evidence, since_s: float, patience_s: float
    ) -> Hang:
        step = min(state.step for state in guilty.values())
        ranks = tuple(sorted(rank for rank, state in guilty.items() if state.step == step))
        if evidence is Evidence.STOPPED:
            ranks = tuple(sorted(guilty))
        return Hang(
            ranks=ranks,
            step=step + 1,
            since_s=since_s,
            deadline_s=patience_s,
            evidence=evidence,
            reason=self._reason(ranks, evidence, step + 1, patience_s),
        )

    def _reason(self, ranks: tuple[int, ...], evidence: Evidence, step: int, patience_s: float) -> str:
        who = ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
        if len(ranks) == len(self._ranks) > 1 and evidence is not Evidence.STOPPED:
            who = "every rank"
        did = {
            Evidence.STOPPED: "was stopped by a signal (state T)",
            Evidence.SILENT: "gave no sign and burnt no CPU",
            Evidence.UNKNOWN: "waits in a collective" if self._everyone_waits else "gave no sign",
            Evidence.BEHIND: "works but did not arrive where the others wait",
        }[evidence]
        usual_s = self.times.quantile(0.5)
        return f"{who} {did} for {patience_s:.3g} s in step {step}; a step takes {usual_s:.3g} s"
