"""Jobs that are held back on purpose: suspended, queued, gated, or left to a scheduler that is not there."""

import re

from tradewind.launch.why.amounts import Room, amount, need_of, shown
from tradewind.launch.why.cause import Cause, Code, Evidence, Weight, fact
from tradewind.launch.why.kinds import ClusterQueue, LocalQueue, Workload
from tradewind.launch.why.pods import Condition
from tradewind.launch.why.view import View, condition, from_condition, from_event, some

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_KUEUE_GATES = ("kueue.x-k8s.io/admission", "kueue.x-k8s.io/topology")


def queue_name(view: View) -> str:
    """The Kueue queue that the job waits in, if it goes through one."""
    labels = view.job.metadata.labels
    return labels.get(QUEUE_LABEL, "") or (view.workload.spec.queue_name if view.workload else "")


def queue_waiting(view: View) -> Cause | None:
    """The job is suspended until its queue admits it."""
    name = queue_name(view)
    if not name or not (view.job.spec.suspend or _gated_by_kueue(view)) or view.ended:
        return None
    reserved = _condition(view.workload, "QuotaReserved")
    said = reserved.message if reserved and reserved.status != "True" else ""
    return Cause(
        code=Code.QUEUE_WAITING,
        text=f"Queue {name} has not admitted the job: {said or _queue_state(view, name)}",
        remedy=_queue_remedy(view, name),
        weight=Weight.WAITS,
        evidence=(
            fact(view.job.ref, f"metadata.labels[{QUEUE_LABEL}]", name),
            fact(view.job.ref, "spec.suspend", str(view.job.spec.suspend).lower()),
            *_workload_facts(view.workload),
            *(from_event(event) for event in view.said("Pending", "Suspended")[-1:]),
        ),
    )


def queue_never_fits(view: View) -> Cause | None:
    """The job asks for more than its queue may ever give it."""
    name = queue_name(view)
    if not name or not view.job.spec.suspend or view.ended:
        return None
    reserved = _condition(view.workload, "QuotaReserved")
    said = bool(reserved and re.search(r"request > maximum capacity", reserved.message))
    over = _over_nominal(view, name)
    if not (said or over):
        return None
    return Cause(
        code=Code.NEVER_FITS,
        text=over
        or f"The job is larger than its queue may ever grant: {reserved.message if reserved else ''}",
        remedy="Ask for less, choose a larger queue, or have its quota raised; waiting does not help.",
        weight=Weight.BLOCKS,
        evidence=_workload_facts(view.workload),
    )


def _over_nominal(view: View, name: str) -> str:
    """The first resource whose quota in all flavors together is less than the whole job asks for."""
    queue = _cluster_queue(view, name)
    if queue is None or queue.spec.cohort or queue.spec.cohort_name:
        return ""
    quota: Room = {}
    for group in queue.spec.resource_groups:
        for flavor in group.flavors:
            for each in flavor.resources:
                quota[each.name] = max(quota.get(each.name, 0.0), amount(each.nominal_quota))
    pods = view.job.spec.parallelism
    for resource, value in need_of(view.job.spec.template.spec).items():
        if resource in quota and value * pods > quota[resource]:
            return (
                f"The job asks for {shown(resource, value * pods)} {resource} at once; ClusterQueue "
                f"{queue.metadata.name} has {shown(resource, quota[resource])} and borrows from nobody."
            )
    return ""


def _local_queue(view: View, name: str) -> LocalQueue | None:
    queues = view.world.all(LocalQueue, view.namespace)
    return next((queue for queue in queues if queue.metadata.name == name), None)


def _cluster_queue(view: View, name: str) -> ClusterQueue | None:
    local = _local_queue(view, name)
    queues = view.world.all(ClusterQueue)
    return next((q for q in queues if local and q.metadata.name == local.spec.cluster_queue), None)


def _queue_state(view: View, name: str) -> str:
    """What is wrong with the queue itself, for a job that nobody has said anything about."""
    queues, local = view.world.all(LocalQueue), _local_queue(view, name)
    if queues and local is None:
        return f"there is no LocalQueue {name} in namespace {view.namespace}."
    cluster = _cluster_queue(view, name)
    if (local and local.spec.stop_policy not in ("", "None")) or (
        cluster and cluster.spec.stop_policy not in ("", "None")
    ):
        return "the queue is stopped (spec.stopPolicy)."
    inactive = _condition(cluster, "Active")
    if inactive and inactive.status != "True":
        return f"its ClusterQueue is not active: {inactive.message}"
    return "Kueue has not said why."


def _queue_remedy(view: View, name: str) -> str:
    if view.world.all(LocalQueue) and _local_queue(view, name) is None:
        return f"Name a queue that exists (kubectl -n {view.namespace} get localqueues), or have it made."
    return "Wait for the queue to move on, raise the WorkloadPriorityClass, or ask for less; kubectl get workloads."


def _gated_by_kueue(view: View) -> bool:
    return any(gate.name in _KUEUE_GATES for pod in view.unplaced for gate in pod.spec.scheduling_gates)


def queue_evicted(view: View) -> Cause | None:
    """Kueue took the job's quota back: preempted by another workload, or evicted for another reason."""
    evicted = _condition(view.workload, "Evicted")
    if evicted is None or evicted.status != "True" or view.ended or not view.job.spec.suspend:
        return None
    preempted = evicted.reason == "Preempted"
    return Cause(
        code=Code.PREEMPTED if preempted else Code.EVICTED,
        text=f"Kueue {'preempted' if preempted else 'evicted'} the job: {evicted.message or evicted.reason}",
        remedy="It goes on from its last checkpoint when its queue admits it again; a higher priority class keeps it."
        if preempted
        else "kubectl describe workload says why; it is requeued when that is over.",
        weight=Weight.HAPPENED,
        evidence=_workload_facts(view.workload),
    )


def suspended(view: View) -> Cause | None:
    """Somebody suspended the job, and no queue will resume it."""
    if not view.job.spec.suspend or queue_name(view) or view.ended:
        return None
    found = condition(view.job.status.conditions, "Suspended")
    return Cause(
        code=Code.SUSPENDED,
        text="The job is suspended, and it is in no queue that would resume it.",
        remedy=f'Resume it: kubectl -n {view.namespace} patch job {view.job.metadata.name} -p \'{{"spec":{{"suspend":false}}}}\'',
        weight=Weight.BLOCKS,
        evidence=(
            fact(view.job.ref, "spec.suspend", "true"),
            *([from_condition(view.job.ref, found)] if found else []),
        ),
    )


def scheduling_gate(view: View) -> Cause | None:
    """The pods carry a gate that somebody has yet to remove; the scheduler does not look at them until then."""
    gated = [pod for pod in view.unplaced if pod.spec.scheduling_gates]
    if not gated or (queue_name(view) and _gated_by_kueue(view)):
        return None
    gates = sorted({gate.name for pod in gated for gate in pod.spec.scheduling_gates})
    return Cause(
        code=Code.SCHEDULING_GATE,
        text=f"{len(gated)} of {view.wanted} pods are held by the scheduling gate {some(gates)}.",
        remedy="Whoever set the gate removes it: see that its controller runs, or leave the gate out of the template.",
        weight=Weight.BLOCKS,
        evidence=(
            fact(gated[0].ref, "spec.schedulingGates", some(gates), gated[0].metadata.creation_timestamp),
        ),
    )


def scheduler_missing(view: View) -> Cause | None:
    """The pods ask for a scheduler from which nobody has heard."""
    silent = [pod for pod in view.unplaced if not condition(pod.status.conditions, "PodScheduled")]
    names = {pod.spec.scheduler_name for pod in silent} - {"", "default-scheduler"}
    if not names or view.said("FailedScheduling"):
        return None
    return Cause(
        code=Code.SCHEDULER_MISSING,
        text=f"The pods ask for scheduler {some(sorted(names))}, which has said nothing about them.",
        remedy="See that this scheduler runs (kubectl get pods -A), or leave schedulerName out of the template.",
        weight=Weight.BLOCKS,
        evidence=(fact(silent[0].ref, "spec.schedulerName", some(sorted(names))),),
    )


def _condition(item: Workload | ClusterQueue | None, type: str) -> Condition | None:
    return condition(item.status.conditions, type) if item else None


def _workload_facts(workload: Workload | None) -> tuple[Evidence, ...]:
    if workload is None:
        return ()
    telling = [each for each in workload.status.conditions if each.status != "True" or each.type == "Evicted"]
    return tuple(from_condition(workload.ref, each) for each in telling[:3])
