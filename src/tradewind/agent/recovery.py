"""What to do after a failure: a pure function of the rules, what failed before, and what failed now.

`recover` asks a list of questions, and the first that has an answer gives the verdict. A failure
counts against the run only if no step was committed since the one before it, so a run that loses a
worker every hour and moves on between never runs out of restarts, while one that stands still ends
after `max_restarts` of them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from tradewind.diagnose.cause import Cause, Symptom
from tradewind.diagnose.xid import Remedy


class Action(StrEnum):
    """What happens to the run next."""

    RESTART = "restart_in_place"
    """Start the failed worker again where it was; survivors re-enter from the newest state."""
    REPLACE = "replace_host"
    """Go on with another host in the place of this one."""
    SHRINK = "shrink"
    """Go on with fewer workers."""
    REQUEUE = "requeue"
    """End, and ask to be scheduled again."""
    STOP = "stop"
    """End as failed: going on would not help."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of recovery, as the run's owner set them."""

    max_restarts: int = 3
    """Failures in a row, with no step committed between them, after which the run is given up."""
    max_preemptions: int = 20
    """Preemptions in a row with no step committed between them; more, and the run would never end."""
    min_workers: int = 0
    """How far the run may shrink; 0 means that it may not."""
    backoff_s: float = 1.0
    """Delay before the second restart without progress; it doubles from there."""
    backoff_cap_s: float = 300.0
    host_failures: int = 3
    """Failures of one host within `host_window_s` after which the run leaves it."""
    host_window_s: float = 24 * 3600.0


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """What the run has and could have."""

    workers: int = 1
    on_host: int = 1
    """Workers on the host that failed."""
    spare_hosts: int = 0
    awaited: bool = False
    """Whoever started this run starts another host in the place of one that is lost."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One failure of the run, as it is remembered."""

    symptom: Symptom
    t_s: float
    committed: int = 0
    """The newest step that a restart could resume from when this happened."""
    step: int | None = None
    """The step it happened in."""
    host: str = ""
    rank: int | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, when, and why."""

    action: Action
    reason: str
    cause: Cause
    delay_s: float = 0.0
    at_s: float = 0.0
    host: str = ""
    """The host that failed."""
    rank: int | None = None
    avoid: tuple[str, ...] = ()
    """Hosts to place nothing on."""
    workers: int = 0
    """Workers to go on with; 0 when the run does not go on here."""
    without_progress: int = 0
    """Failures in a row, this one included, with no step committed between them."""
    max_restarts: int = 0
    fails_again: bool = False
    """Whoever starts this run again would see it fail the same way."""

    def event(self) -> dict[str, Any]:
        """The data of the event that records it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


_BLAMES_HOST = frozenset(
    {Cause.CRASH, Cause.HANG, Cause.DEVICE, Cause.HOST_LOST, Cause.HOST_MEMORY, Cause.NO_PROGRESS}
)
"""Causes that count against the host. A kill from outside and an exception say nothing about it."""
_MAY_BE_BUGS = frozenset({Cause.EXCEPTION, Cause.DEVICE_MEMORY, Cause.HOST_MEMORY, Cause.DEVICE})


class Case:
    """One failure to decide on, with what follows from the history."""

    def __init__(
        self, rules: Rules, history: Sequence[Incident], incident: Incident, now_s: float, fleet: Fleet
    ) -> None:
        self.rules, self.incident, self.now_s, self.fleet = rules, incident, now_s, fleet
        self.symptom = incident.symptom
        self.cause = incident.symptom.cause
        self.recent = since_progress([*history, incident])
        """Incidents of this one's sort, itself the last, with no step committed between them."""
        self.stuck = len(self.recent)
        self.blamed = blamed_hosts(rules, [*history, incident], now_s)

    def verdict(
        self,
        action: Action,
        why: str,
        *,
        workers: int | None = None,
        stays: bool = False,
        fails_again: bool = False,
    ) -> Verdict:
        """A verdict with the fields that every one of them has; `stays`: workers remain on this host."""
        goes_on = action in (Action.RESTART, Action.REPLACE, Action.SHRINK)
        delay_s = 0.0 if action is Action.STOP else backoff_s(self.rules, self.stuck)
        host = {self.incident.host}
        avoid = self.blamed - host if stays else self.blamed
        if action is Action.REPLACE:
            avoid |= host
        return Verdict(
            action=action,
            reason=f"{self.symptom.text}{self.where}; {why}",
            cause=self.cause,
            delay_s=delay_s,
            at_s=self.now_s + delay_s,
            host=self.incident.host,
            rank=self.incident.rank,
            avoid=tuple(sorted(avoid - {""})),
            workers=(self.fleet.workers if workers is None else workers) if goes_on else 0,
            without_progress=self.stuck,
            max_restarts=self.rules.max_restarts,
            fails_again=fails_again,
        )

    @property
    def where(self) -> str:
        """The step and host of the failure, where they are known."""
        step = "" if self.incident.step is None else f" in step {self.incident.step}"
        return step + (f" on {self.incident.host}" if self.incident.host else "")

    @property
    def host_is_broken(self) -> bool:
        """Whether nothing can run on this host, or on this device of it, as it is."""
        return breaks_host(self.incident)

    @property
    def previous(self) -> Incident | None:
        """The failure before this one, if nothing was committed since."""
        return self.recent[-2] if self.stuck > 1 else None


def recover(
    rules: Rules,
    history: Sequence[Incident],
    incident: Incident,
    now_s: float,
    fleet: Fleet | None = None,
) -> Verdict:
    """The verdict on `incident`, given the run's earlier ones, oldest first."""
    case = Case(rules, history, incident, now_s, fleet or Fleet())
    for question in _QUESTIONS:
        verdict = question(case)
        if verdict is not None:
            return verdict
    return restart(case)


def was_it_preempted(case: Case) -> Verdict | None:
    """The machine is wanted by somebody else: state is committed, so come back later."""
    if case.cause is not Cause.PREEMPTED:
        return None
    if case.stuck > case.rules.max_preemptions:
        why = f"preempted {case.stuck} times with no step committed between: commit more often"
        return case.verdict(Action.STOP, why)
    return case.verdict(Action.REQUEUE, "the run asks to be scheduled again")


def would_it_fail_again(case: Case) -> Verdict | None:
    """The script, its command line or its data is wrong, and says so."""
    if case.cause is Cause.DATA:
        return case.verdict(Action.STOP, "the script says that this data would fail again", fails_again=True)
    if case.cause is Cause.USAGE:
        return case.verdict(Action.STOP, "the same code would fail the same way", fails_again=True)
    return None


def did_the_same_bug_come_back(case: Case) -> Verdict | None:
    """The same exception in the same place and step, replayed from the same state, is not chance.

    A device error may still be the device's: with another host to try, that is asked first.
    """
    before = case.previous
    if before is None or case.cause not in _MAY_BE_BUGS or not is_same_bug(before, case.incident):
        return None
    if case.cause is Cause.DEVICE and before.host == case.incident.host and case.fleet.spare_hosts:
        return None
    why = f"the same failure twice from the same state ({case.symptom.signature})"
    return case.verdict(Action.STOP, f"{why}: it is in the code or the data", fails_again=True)


def is_the_budget_used(case: Case) -> Verdict | None:
    """Too many failures since a step was last committed."""
    if case.stuck <= case.rules.max_restarts:
        return None
    allowed = f"{case.rules.max_restarts} restarts are allowed"
    why = f"{case.stuck} failures with no step committed between, and {allowed}"
    return case.verdict(Action.STOP, why)


def is_the_host_broken(case: Case) -> Verdict | None:
    """The host is gone, or has a device that only a reset would mend."""
    if not case.host_is_broken:
        return None
    if case.fleet.spare_hosts:
        return case.verdict(Action.REPLACE, "its host is replaced")
    # On the only host there is, what is left out is the device rather than the host.
    only = case.fleet.on_host >= case.fleet.workers and case.cause is Cause.DEVICE
    left = case.fleet.workers - (1 if only else case.fleet.on_host)
    if 0 < case.rules.min_workers <= left:
        return case.verdict(
            Action.SHRINK, f"no spare host, so {left} workers go on", workers=left, stays=only
        )
    if case.fleet.awaited and case.cause is Cause.HOST_LOST:
        return case.verdict(Action.REPLACE, "the others wait for one in its place")
    return case.verdict(Action.REQUEUE, "no spare host and too few workers left: wait for another machine")


def does_the_host_fail_often(case: Case) -> Verdict | None:
    """Not broken for certain, but worse than its peers, or twice at the same point: try another."""
    host, before = case.incident.host, case.previous
    if not host or not case.fleet.spare_hosts or case.cause not in _BLAMES_HOST:
        return None
    if host in case.blamed:
        hours = case.rules.host_window_s / 3600
        why = f"this host failed {case.rules.host_failures} times or more in {hours:g} h: it is replaced"
        return case.verdict(Action.REPLACE, why)
    if before is not None and before.host == host and before.symptom.cause in _BLAMES_HOST:
        return case.verdict(Action.REPLACE, "the second failure in a row on this host: it is replaced")
    return None


_QUESTIONS: tuple[Callable[[Case], Verdict | None], ...] = (
    was_it_preempted,
    would_it_fail_again,
    did_the_same_bug_come_back,
    is_the_budget_used,
    is_the_host_broken,
    does_the_host_fail_often,
)


def restart(case: Case) -> Verdict:
    """Try again where it was."""
    used = f"restart {case.stuck} of {case.rules.max_restarts} since a step was last committed"
    return case.verdict(Action.RESTART, f"restarted in place ({used})", stays=True)


def since_progress(incidents: Sequence[Incident]) -> list[Incident]:
    """Those like the last one, counted back from it, with no new step committed between them.

    Alike means preemptions for a preemption and failures for a failure: they have limits of their own.
    """
    best, since = -1, 0
    for index, incident in enumerate(incidents):
        if incident.committed > best:
            best, since = incident.committed, index
    preempted = incidents[-1].symptom.cause is Cause.PREEMPTED
    return [i for i in incidents[since:] if (i.symptom.cause is Cause.PREEMPTED) is preempted]


def backoff_s(rules: Rules, failures: int) -> float:
    """Nothing after the first failure, then doubling up to the cap."""
    if failures < 2:
        return 0.0
    # 2**60 seconds is past any cap; the bound keeps the power a float.
    return min(rules.backoff_cap_s, rules.backoff_s * 2.0 ** min(failures - 2, 60))


def blamed_hosts(rules: Rules, incidents: Sequence[Incident], now_s: float) -> frozenset[str]:
    """Hosts to leave alone: broken ones, and those that failed often and twice as often as any other.

    The comparison keeps a bug that strikes everywhere from emptying the cluster host by host.
    """
    recent = [i for i in incidents if now_s - i.t_s <= rules.host_window_s]
    counts = Counter(i.host for i in recent if i.host and i.symptom.cause in _BLAMES_HOST)
    often = {
        host
        for host, failures in counts.items()
        if failures >= rules.host_failures and failures >= 2 * most_elsewhere(counts, host)
    }
    return frozenset(often | {i.host for i in recent if i.host and breaks_host(i)})


def most_elsewhere(counts: Mapping[str, int], host: str) -> int:
    """The most failures of any other host."""
    return max((failures for other, failures in counts.items() if other != host), default=0)


def breaks_host(incident: Incident) -> bool:
    """Whether this failure means that its host needs a repair before it is used again."""
    symptom = incident.symptom
    if symptom.cause is Cause.HOST_LOST:
        return True
    wants_host = symptom.ecc or any(xid.remedy is Remedy.HOST for xid in symptom.xids)
    return symptom.cause is Cause.DEVICE and wants_host


def is_same_bug(before: Incident, now: Incident) -> bool:
    """Same exception and place in the same step, of something that does not fail by chance."""
    one, other = before.symptom, now.symptom
    return (
        bool(other.signature)
        and not other.transient
        and (one.cause, one.signature, before.step) == (other.cause, other.signature, now.step)
    )
