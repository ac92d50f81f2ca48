"""From a group that failed to a verdict: what failed first, where, and what the policy makes of it."""

import time
from collections.abc import Sequence

import msgspec

from tradewind.agent.group import Group
from tradewind.agent.host import Host
from tradewind.agent.job import Job
from tradewind.agent.recovery import Fleet, Incident, Rules, Verdict, recover
from tradewind.diagnose.cause import read_cause
from tradewind.diagnose.first_failure import Failure
from tradewind.diagnose.hang import Hang


class Judge:
    """Remembers the failures of one run; a new one is judged in their light."""

    def __init__(self, job: Job) -> None:
        self.rules = Rules(max_restarts=job.max_restarts, min_workers=job.min_hosts * job.per_host)
        self._awaited = job.hosts > 1
        self._incidents: list[Incident] = []

    def judge(
        self, group: Group, hosts: Sequence[Host], failure: Failure, seen_s: float, committed: int
    ) -> Verdict:
        """What to do about a group's failure; `hosts` are those that the run still has."""
        host = group.hosts[failure.rank]
        incident = Incident(
            symptom=read_cause(failure),
            t_s=seen_s,
            committed=committed,
            step=committed + 1,
            host=host.name,
            rank=failure.rank,
        )
        in_use = {one.index for one in group.hosts.values()}
        fleet = Fleet(
            workers=group.size,
            on_host=sum(one is host for one in group.hosts.values()),
            spare_hosts=sum(one.index not in in_use for one in hosts),
            awaited=self._awaited,
        )
        verdict = recover(self.rules, self._incidents, incident, time.time(), fleet)
        self._incidents.append(incident)
        return verdict


def hung(failure: Failure, hang: Hang) -> Failure:
    """The failure of a rank that was killed because it hung, named after the hang and not the signal."""
    return msgspec.structs.replace(failure, rank=hang.ranks[0], kind="hang", exception=hang.reason)
