"""What befell the pods of a job: disruptions from outside and failures from inside, on one time line.

The root is the first incident of the last round: for every completion index the latest incident that
its pods have not recovered from, and of these the earliest. So the rank whose exception came first is
named, and not those that lost their peer a moment later.
"""

from tradewind.launch.why.cause import Cause, Code, Evidence, Weight, fact
from tradewind.launch.why.fit import Bar, bars
from tradewind.launch.why.kinds import Event, PodGroup
from tradewind.launch.why.pods import ContainerStatus, Pod, Terminated
from tradewind.launch.why.startup import CONFIG, statuses
from tradewind.launch.why.view import View, condition, from_condition, from_event, index_of
from tradewind.launch.why.words import code_of, headline, lost_a_peer
from tradewind.names import ExitCode
from tradewind.record import Record, replace


class Incident(Record):
    """One thing that happened to one pod."""

    code: Code
    index: str
    pod: str
    time: str
    text: str
    evidence: tuple[Evidence, ...]
    vague: bool = False
    """A bare exit code, about which nobody said anything."""
    secondary: bool = False
    """The container only says that another one is gone."""
    healed: bool = False
    """The pod, or one in its place, is at work again or has ended well."""


_ORDER = (
    Code.NODE_LOST,
    Code.PREEMPTED,
    Code.EVICTED,
    Code.OUT_OF_MEMORY,
    Code.CRASH_LOOP,
    Code.USER_ERROR,
    Code.KILLED,
    Code.RENDEZVOUS,
)
"""Of incidents in the same second, the more likely origin first: what came from outside, and peers lost last."""
_DISRUPTIONS = {
    "PreemptionByScheduler": Code.PREEMPTED,
    "EvictionByEvictionAPI": Code.EVICTED,
    "TerminationByKubelet": Code.EVICTED,
    "DeletionByTaintManager": Code.EVICTED,
    "DeletionByPodGC": Code.NODE_LOST,
}
_SIGNALS = {
    137: "SIGKILL",
    143: "SIGTERM",
    139: "SIGSEGV",
    134: "SIGABRT",
    135: "SIGBUS",
    136: "SIGFPE",
    130: "SIGINT",
}
_MANY_RESTARTS = 2
_MEMORY_REMEDY = (
    "Raise the memory limit, or use less: smaller batches, fewer data workers, no caches that only grow."
)
_REMEDIES = {
    Code.PREEMPTED: "It goes on from its last checkpoint when there is room again; a higher priority class, or a time "
    "with less demand, keeps it from being preempted.",
    Code.EVICTED: "See why the pod had to go (kubectl describe node); a drain passes by itself, pressure on memory or "
    "disk asks for requests that match what the job uses.",
    Code.NODE_LOST: "The pod is replaced on another node once there is room; have the node looked at "
    "(kubectl describe node) before it gets work again.",
    Code.OUT_OF_MEMORY: _MEMORY_REMEDY,
    Code.CRASH_LOOP: "Read the last attempt's log: kubectl logs --previous; the container ends soon after every start.",
    Code.KILLED: "Nobody says who killed it: look for memory that ran out in a child process (dmesg on the node), a "
    "liveness probe, or a grace period that was over.",
    Code.USER_ERROR: "Read the log of this pod first (kubectl logs): the others failed after it.",
    Code.RENDEZVOUS: "See that the pods reach each other: the headless Service and the pods' subdomain, network "
    "policies, the port, and the interface that NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME names.",
}  # fmt: skip


def incidents(view: View) -> list[Incident]:
    """Everything that befell the job's pods, in the order of time."""
    found = [incident for pod in view.pods if (incident := of_pod(view, pod))]
    known = {incident.pod for incident in found}
    found += [each for event in view.events if (each := of_event(view, event)) and each.pod not in known]
    return sorted(found, key=lambda each: (each.time, _ORDER.index(each.code)))


def root(found: list[Incident]) -> Incident | None:
    """The first incident of the last round."""
    last: dict[str, Incident] = {}
    for each in found:
        if not each.healed:
            last[each.index] = each
    return min(last.values(), key=_primacy, default=None)


def _primacy(each: Incident) -> tuple[bool, str, bool, int]:
    """Who only lost a peer comes last, as hosts' clocks differ; in one second, a bare exit code after words."""
    return each.secondary, each.time, each.vague, _ORDER.index(each.code)


def of_pod(view: View, pod: Pod) -> Incident | None:
    """What befell one pod that is still there."""
    return _disrupted(view, pod) or _reported(view, pod) or _on_lost_node(view, pod) or _failed(view, pod)


def _disrupted(view: View, pod: Pod) -> Incident | None:
    """The cluster says that it took the pod away."""
    target = condition(pod.status.conditions, "DisruptionTarget")
    if target is None or target.status != "True":
        return None
    code = _DISRUPTIONS.get(target.reason, Code.EVICTED)
    if target.reason == "DeletionByTaintManager" and is_lost(view, pod.spec.node_name, target.message):
        code = Code.NODE_LOST
    verb = {
        Code.PREEMPTED: "was preempted",
        Code.EVICTED: "was evicted",
        Code.NODE_LOST: "was lost with its node",
    }
    who = preemptor(view, target.message) if code is Code.PREEMPTED else ""
    text = f"Pod {pod.metadata.name} {verb[code]} ({pod.spec.node_name}){who}: {pod.status.message or target.message}"
    return _incident(view, pod, code, target.last_transition_time, text, from_condition(pod.ref, target))


def _reported(view: View, pod: Pod) -> Incident | None:
    """A kubelet's own reason for a pod that it ended or gave up."""
    reasons = {"Evicted": Code.EVICTED, "NodeLost": Code.NODE_LOST, "Preempting": Code.PREEMPTED, "Terminated": Code.EVICTED, "NodeShutdown": Code.EVICTED}  # fmt: skip
    code = reasons.get(pod.status.reason)
    if code is None:
        return None
    said = f"{pod.status.reason}: {pod.status.message}"
    time = next((e.time for e in view.said("Evicted", "Preempting", pod=pod)), "") or _end_of(pod)
    text = f"Pod {pod.metadata.name} was taken off node {pod.spec.node_name} ({said})"
    return _incident(view, pod, code, time, text, fact(pod.ref, "status.reason", said, time))


def _on_lost_node(view: View, pod: Pod) -> Incident | None:
    """The pod sits on a node that nobody has heard of, whatever its own last report says."""
    name = pod.spec.node_name
    if not name or pod.status.phase in ("Succeeded", "Failed") or not is_lost(view, name):
        return None
    node = view.world.nodes.get(name)
    ready = condition(node.status.conditions, "Ready") if node else None
    since = ready.last_transition_time if ready else ""
    evidence = (
        from_condition(f"node/{name}", ready) if ready else fact("nodes", "metadata.name", f"{name} is gone")
    )
    text = f"Node {name}, where pod {pod.metadata.name} runs, is {'not ready' if node else 'gone'}"
    found = _incident(view, pod, Code.NODE_LOST, since, text, evidence)
    return replace(found, healed=_replaced(view, pod))


def is_lost(view: View, name: str, said: str = "") -> bool:
    """Whether a node is away: gone from the cluster, or not ready."""
    if "unreachable" in said or "not-ready" in said:
        return True
    if not view.world.nodes or not name:
        return False
    node = view.world.nodes.get(name)
    ready = condition(node.status.conditions, "Ready") if node else None
    return (
        node is None
        or (ready is not None and ready.status != "True")
        or Bar.LOST in set(bars(node, node.spec.taints, ()))
    )


def _failed(view: View, pod: Pod) -> Incident | None:
    """A container ended with an error, now or before its last restart."""
    worst: Incident | None = None
    for status in statuses(pod):
        ended = _last_end(status)
        if ended is None or (ended.exit_code == 0 and ended.reason != "OOMKilled"):
            worst = worst or _cannot_start(view, pod, status)
            continue
        found = _ended(view, pod, status, ended)
        worst = found if worst is None or found.time < worst.time else worst
    return worst


def _last_end(status: ContainerStatus) -> Terminated | None:
    return status.state.terminated or status.last_state.terminated


def _ended(view: View, pod: Pod, status: ContainerStatus, ended: Terminated) -> Incident:
    code = code_of(ended, looping=is_looping(status))
    how = _SIGNALS.get(ended.exit_code, "")
    how = f"exit code {ended.exit_code}{f' ({how})' if how else ''}"
    last = headline(ended.text)
    again = f", restarted {status.restart_count} times" if status.restart_count else ""
    text = f"Container {status.name} of pod {pod.metadata.name} ended with {how}, {ended.reason or 'Error'}{again}"
    place = "state" if status.state.terminated else "lastState"
    evidence = fact(pod.ref, f"status.containerStatuses[{status.name}].{place}.terminated",
                    f"{how} {ended.reason} {ended.text}".strip(), ended.finished_at)  # fmt: skip
    found = _incident(view, pod, code, ended.finished_at, f"{text}{f': {last}' if last else ''}", evidence)
    vague = not last and 0 < ended.exit_code < 65 and ended.exit_code != ExitCode.USAGE
    calm = pod.status.phase == "Running" and status.state.running is not None and not is_looping(status)
    secondary = lost_a_peer(ended.text) and code is not Code.OUT_OF_MEMORY
    return replace(found, vague=vague, secondary=secondary, healed=found.healed or calm)


def is_looping(status: ContainerStatus) -> bool:
    """The kubelet waits longer before every restart, or has restarted the container again and again."""
    waiting = status.state.waiting
    return bool(waiting and waiting.reason == "CrashLoopBackOff") or status.restart_count >= _MANY_RESTARTS


def _cannot_start(view: View, pod: Pod, status: ContainerStatus) -> Incident | None:
    """The container's command cannot even be run; what it lacks to be configured is told elsewhere."""
    waiting = status.state.waiting
    if waiting and waiting.reason == "CreateContainerConfigError" and CONFIG.search(waiting.message):
        return None
    if not waiting or waiting.reason not in (
        "RunContainerError",
        "CreateContainerConfigError",
        "CreateContainerError",
        "StartError",
        "PostStartHookError",
    ):
        return None
    text = f"Container {status.name} of pod {pod.metadata.name} cannot be started ({waiting.reason}): {waiting.message}"
    evidence = fact(
        pod.ref,
        f"status.containerStatuses[{status.name}].state.waiting",
        f"{waiting.reason}: {waiting.message}",
    )
    return _incident(view, pod, Code.USER_ERROR, pod.status.start_time, text, evidence)


_SAID = {"Preempted": Code.PREEMPTED, "TaintManagerEviction": Code.EVICTED, "Evicted": Code.EVICTED}


def of_event(view: View, event: Event) -> Incident | None:
    """What befell a pod that is gone, by the event that it left behind."""
    code = _SAID.get(event.reason)
    if code is None or event.about.kind != "Pod" or "Cancelling" in event.text:
        return None
    if event.reason == "TaintManagerEviction" and any(is_lost(view, name) for name in _nodes_of(view, event)):
        code = Code.NODE_LOST
    name = event.about.name
    index = name.removeprefix(view.job.metadata.name + "-").rpartition("-")[0] or name
    who = preemptor(view, event.text) if code is Code.PREEMPTED else ""
    return Incident(
        code=code,
        index=index,
        pod=name,
        time=event.time,
        text=f"Pod {name} is gone{who}: {event.text}",
        evidence=(from_event(event),),
        healed=_index_works(view, index),
    )


def _nodes_of(view: View, event: Event) -> list[str]:
    """Where a pod that is gone was bound to, by the scheduler's event."""
    bound = [e.text for e in view.said("Scheduled") if e.about.name == event.about.name]
    return [text.rsplit(" to ", 1)[-1].strip() for text in bound]


def preemptor(view: View, said: str) -> str:
    """Who took the place, by the uid of a pod or of a gang that the scheduler's message holds."""
    groups = {
        (g.metadata.namespace, g.metadata.name)
        for g in view.world.all(PodGroup)
        if g.metadata.uid and g.metadata.uid in said
    }
    for pod in view.world.all(Pod):
        group = (pod.metadata.namespace, pod.spec.scheduling_group.pod_group_name)
        if group in groups or (pod.metadata.uid and pod.metadata.uid in said):
            owners = pod.metadata.owner_references
            name = f"{owners[0].kind.lower()}/{owners[0].name}" if owners else f"pod/{pod.metadata.name}"
            return f", preempted by {pod.metadata.namespace}/{name} of priority {pod.spec.priority}"
    return ""


def _incident(view: View, pod: Pod, code: Code, time: str, text: str, evidence: Evidence) -> Incident:
    index = index_of(pod)
    return Incident(
        code=code, index=index, pod=pod.metadata.name, time=time, text=text, evidence=(evidence,), healed=_replaced(view, pod)
    )  # fmt: skip


def _replaced(view: View, pod: Pod) -> bool:
    """Whether another pod does this one's work now, or has done it; the next try of a series has not yet."""
    index = index_of(pod)
    same = view.by_index[index]
    if sum(map(_failed_by_itself, same)) > 1:
        return any(other.status.phase == "Succeeded" for other in same)
    if index == pod.metadata.name:
        return not view.missing and len(view.running) >= view.wanted > 0
    return any(other is not pod and _works(view, other) for other in same)


def _failed_by_itself(pod: Pod) -> bool:
    return pod.status.phase == "Failed" and condition(pod.status.conditions, "DisruptionTarget") is None


def _index_works(view: View, index: str) -> bool:
    same = view.by_index.get(index, [])
    return any(_works(view, pod) for pod in same) or (not same and 0 < view.wanted <= len(view.running))


def _works(view: View, pod: Pod) -> bool:
    if pod.status.phase == "Succeeded":
        return True
    is_running = pod.status.phase == "Running" and not pod.metadata.deletion_timestamp
    return is_running and not is_lost(view, pod.spec.node_name)


def _end_of(pod: Pod) -> str:
    return max(
        (ended.finished_at for status in statuses(pod) if (ended := _last_end(status))),
        default=pod.status.start_time,
    )


def causes_of(view: View, found: list[Incident]) -> list[Cause]:
    """The root first; then one cause for every other kind of incident."""
    first, causes = root(found), []
    for code in dict.fromkeys([first.code] if first else []) | dict.fromkeys(each.code for each in found):
        same = [each for each in found if each.code is code]
        chosen = first if first and first.code is code else same[-1]
        causes.append(_cause(view, chosen, same, is_root=chosen is first))
    return causes


def _cause(view: View, chosen: Incident, same: list[Incident], is_root: bool) -> Cause:
    more = f" ({len(same)} of the job's pods in all)" if len(same) > 1 else ""
    return Cause(
        code=chosen.code,
        text=f"{chosen.text.rstrip('.')}{more}.",
        remedy=_REMEDIES[chosen.code],
        weight=_weight(view, chosen, is_root),
        evidence=chosen.evidence + tuple(each.evidence[0] for each in same if each is not chosen)[:2],
    )


def _weight(view: View, chosen: Incident, is_root: bool) -> float:
    if chosen.healed:
        return Weight.PAST
    if not is_root:
        return Weight.FOLLOWS
    return Weight.ENDED if view.ended else Weight.HAPPENED
