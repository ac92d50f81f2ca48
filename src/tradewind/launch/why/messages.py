"""What the scheduler's sentences say, for dumps without the objects that would prove it."""

import re

from tradewind.launch.why.cause import Cause, Code, Evidence, Weight
from tradewind.launch.why.pods import TEXT_LIMIT, Pod
from tradewind.launch.why.view import View, condition, from_condition, from_event

_SAYINGS = (
    (3, Code.AFFINITY, r"pod (?:anti-)?affinity|topology spread|anti-affinity rules"),
    (3, Code.VOLUME_UNBOUND, r"unbound immediate|volume node affinity|persistent ?volume"),
    (2, Code.NO_CAPACITY, r"^Insufficient |^Too many pods|cannot allocate all claims|free ports"),
    (1, Code.NODE_LOST, r"node\.kubernetes\.io/(?:unreachable|not-ready)"),
    (1, Code.CORDONED, r"were unschedulable|node\.kubernetes\.io/unschedulable"),
    (1, Code.TAINT, r"\btaint"),
    (1, Code.NODE_SELECTOR, r"node affinity/selector|node\(s\) didn't match"),
)
"""What is said of some nodes, and how far these came through the scheduler's filters: the farther, the closer
they are to taking the pod. Of the nodes that came no further than the first filters, the most count."""
_PART = re.compile(
    r"(\d+) (Insufficient [\w./-]+|Too many pods|cannot allocate all claims|node\(s\) [^,{]*(?:\{[^}]*\})?)"
)
_CONTROL_PLANE = re.compile(r"node-role\.kubernetes\.io/(control-plane|master)")
_OF_THE_POD = (
    (Code.VOLUME_UNBOUND, r"unbound immediate PersistentVolumeClaims|persistentvolumeclaim \S+ not found"),
    (Code.GANG_INCOMPLETE, r"minCount|minMember|\bgang\b"),
)
_REMEDIES = {
    Code.VOLUME_UNBOUND: "Look at the claim: kubectl describe pvc; bind it, or name a storage class that provisions.",
    Code.NODE_LOST: "Bring the nodes back (kubectl describe node), or send the job elsewhere.",
    Code.CORDONED: "kubectl uncordon the nodes once they are fit for work.",
    Code.NO_CAPACITY: "Wait for others to end, ask for less, or add nodes.",
    Code.TAINT: "Add the toleration if the job may run there, or choose other nodes.",
    Code.AFFINITY: "Relax the affinity or the spread of the pods.",
    Code.NODE_SELECTOR: "Correct the node selector: kubectl get nodes --show-labels.",
    Code.GANG_INCOMPLETE: "Make room for the whole gang, or start with fewer hosts.",
}


def said_by_scheduler(view: View) -> str:
    """The scheduler's last sentence about a pod that waits, without its note on preemption."""
    for pod in reversed(view.unplaced):
        found = condition(pod.status.conditions, "PodScheduled")
        if found and found.message:
            return found.message[:TEXT_LIMIT].split(" preemption:")[0]
    events = view.said("FailedScheduling")
    return events[-1].text.split(" preemption:")[0] if events else ""


def from_message(view: View) -> Cause | None:
    """The first known saying in the scheduler's own explanation."""
    said = said_by_scheduler(view)
    code = read_code(said, view.unplaced[0] if view.unplaced else None)
    if code is None:
        return None
    return Cause(
        code=code,
        text=f"The scheduler says: {said}",
        remedy=_REMEDIES[code],
        weight=Weight.SAID,
        evidence=scheduler_evidence(view),
    )


def read_code(said: str, pod: Pod | None) -> Code | None:
    """The code that a sentence of the scheduler means."""
    code = _of_nodes(said) or next((code for code, known in _OF_THE_POD if re.search(known, said)), None)
    is_affinity = code is Code.NODE_SELECTOR and pod is not None and not pod.spec.node_selector
    return Code.AFFINITY if is_affinity else code


def _of_nodes(said: str) -> Code | None:
    """What keeps the pod off the nodes that came closest to taking it."""
    found: list[tuple[int, int, Code]] = []
    for count, text in _PART.findall(said):
        if _CONTROL_PLANE.search(text):
            continue
        known = ((depth, code) for depth, code, pattern in _SAYINGS if re.search(pattern, text))
        found += [(depth, int(count[:9]) if depth == 1 else 0, code) for depth, code in [*known][:1]]
    return max(found, key=lambda each: each[:2])[2] if found else None


def scheduler_evidence(view: View) -> tuple[Evidence, ...]:
    """The scheduler's own word, where it has said one."""
    for pod in reversed(view.unplaced):
        found = condition(pod.status.conditions, "PodScheduled")
        if found:
            return (from_condition(pod.ref, found),)
    return tuple(from_event(event) for event in view.said("FailedScheduling")[-1:])
