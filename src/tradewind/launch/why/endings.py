"""Jobs that are over, that run, or about which nothing is known."""

from tradewind.launch.why.cause import Cause, Code, Evidence, Weight, fact
from tradewind.launch.why.fit import selects
from tradewind.launch.why.incidents import Incident, root
from tradewind.launch.why.kinds import NetworkPolicy, Service
from tradewind.launch.why.pods import Condition
from tradewind.launch.why.view import View, from_condition, from_event, some

_DONE = ("Complete", "SuccessCriteriaMet")


def completed(view: View) -> Cause | None:
    """The job ended well."""
    if view.ended is None or view.ended.type not in _DONE:
        return None
    return Cause(
        code=Code.COMPLETED,
        text=f"The job completed: {view.job.status.succeeded} pods ended well.",
        remedy="Nothing is to be done.",
        weight=Weight.ENDED,
        evidence=(from_condition(view.job.ref, view.ended),),
    )


def deadline(view: View) -> Cause | None:
    """The job took longer than its active deadline allows."""
    ended = _failed(view, "DeadlineExceeded")
    late = [pod for pod in view.pods if pod.status.reason == "DeadlineExceeded"]
    if ended is None and not late:
        return None
    limit = view.job.spec.active_deadline_seconds
    found = (
        from_condition(view.job.ref, ended)
        if ended
        else fact(late[0].ref, "status.reason", "DeadlineExceeded")
    )
    return Cause(
        code=Code.DEADLINE,
        text=f"The job was ended by its deadline{f' of {limit} s' if limit else ''} (activeDeadlineSeconds), "
        "which counts waiting too.",
        remedy="Raise or remove activeDeadlineSeconds; what else is listed here may have used the time up.",
        weight=Weight.ENDED + 0.01,
        evidence=(found, fact(view.job.ref, "spec.activeDeadlineSeconds", limit)),
    )


def backoff_limit(view: View, found: list[Incident]) -> Cause | None:
    """The job was given up after so many failures; first where no failure says more than an exit code."""
    ended = _failed(view, "BackoffLimitExceeded", "MaxFailedIndexesExceeded", "FailedIndexes")
    if ended is None:
        return None
    limit, failures = view.job.spec.backoff_limit, view.job.status.failed
    first = root(found)
    telling = first is not None and (not first.vague or failures < 2)
    return Cause(
        code=Code.BACKOFF_LIMIT,
        text=f"The job was given up after {failures} failed pods (backoffLimit {'6' if limit is None else limit}).",
        remedy="Remove what makes the pods fail; raise backoffLimit only for failures that pass, or let "
        "podFailurePolicy ignore disruptions.",
        weight=Weight.FOLLOWS if telling else Weight.ENDED + 0.01,
        evidence=(from_condition(view.job.ref, ended), fact(view.job.ref, "status.failed", failures)),
    )


def failure_policy(view: View, found: list[Incident]) -> Cause | None:
    """The job's own policy calls this exit a bug, so nothing was tried again."""
    ended = _failed(view, "PodFailurePolicy")
    if ended is None or "DisruptionTarget" in ended.message:
        return None
    first = root(found)
    said = f" {first.text}." if first else ""
    return Cause(
        code=Code.USER_ERROR,
        text=f"By the job's failure policy this failure is not retried: {ended.message}.{said}",
        remedy="Read the log of that pod; correct the program or its arguments and submit again.",
        weight=Weight.ENDED if first is None or first.code is Code.USER_ERROR else Weight.PARTLY,
        evidence=(from_condition(view.job.ref, ended), *(first.evidence if first else ())),
    )


def failed_otherwise(view: View) -> Cause | None:
    """The job failed for a reason that has no code of its own."""
    known = (
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "PodFailurePolicy",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    )
    ended = view.ended
    if ended is None or ended.type in _DONE or ended.reason in known:
        return None
    return Cause(
        code=Code.UNKNOWN,
        text=f"The job failed: {ended.reason} {ended.message}",
        remedy="kubectl describe job says more.",
        weight=Weight.FOLLOWS,
        evidence=(from_condition(view.job.ref, ended),),
    )


def _failed(view: View, *reasons: str) -> Condition | None:
    ended = view.ended
    return ended if ended and ended.type not in _DONE and ended.reason in reasons else None


def unreachable(view: View) -> Cause | None:
    """The pods run, and cannot find or reach each other: no Service of their subdomain, or a policy between them."""
    spec, labels = view.job.spec.template.spec, view.job.spec.template.metadata.labels
    if not view.running or view.job.spec.parallelism < 2:
        return None
    if spec.subdomain and _no_service(view, spec.subdomain):
        said = fact(view.job.ref, "spec.template.spec.subdomain", spec.subdomain)
        return _unreachable(f"there is no Service {spec.subdomain}, so the pods' names do not resolve", said)
    names = labels | (view.pods[0].metadata.labels if view.pods else {})
    policies = [each for each in view.world.all(NetworkPolicy, view.namespace) if _governs(each, names)]
    if not policies or any(_lets_in(policy, names) for policy in policies):
        return None
    said = fact(policies[0].ref, "spec", "selects the pods and lets no other pod in")
    return _unreachable(f"NetworkPolicy {policies[0].metadata.name} lets none of their peers in", said)


def _unreachable(why: str, evidence: Evidence) -> Cause:
    return Cause(
        code=Code.RENDEZVOUS,
        text=f"The pods run, but cannot meet: {why}.",
        remedy="Make the headless Service (clusterIP: None) that the subdomain names, or let the pods of the job "
        "reach each other in the network policy.",
        weight=Weight.HAPPENED,
        evidence=(evidence,),
    )


def _no_service(view: View, name: str) -> bool:
    """Whether it is missing, which a dump shows only if it holds any Service at all."""
    services = view.world.all(Service)
    return bool(services) and all(
        (s.metadata.namespace, s.metadata.name) != (view.namespace, name) for s in services
    )


def _governs(policy: NetworkPolicy, labels: dict[str, str]) -> bool:
    """Whether pods with these labels are reached only by whom a policy lets in."""
    types = policy.spec.policy_types
    return (not types or "Ingress" in types) and selects(policy.spec.pod_selector, labels)


def _lets_in(policy: NetworkPolicy, labels: dict[str, str]) -> bool:
    """Whether pods with these labels may come in; namespaces and addresses are given the benefit of the doubt."""
    return any(
        not rule.from_
        or any(peer.pod_selector is None or selects(peer.pod_selector, labels) for peer in rule.from_)
        for rule in policy.spec.ingress
    )


def running(view: View) -> Cause | None:
    """Pods are at work."""
    if not view.running:
        return None
    whole = len(view.running) >= view.wanted
    return Cause(
        code=Code.RUNNING,
        text=f"{len(view.running)} of {view.wanted} pods run.",
        remedy="Nothing is to be done." if whole else "See the other causes for the pods that do not run.",
        weight=Weight.SAID if whole else Weight.REST,
        evidence=tuple(
            fact(p.ref, "status.phase", p.status.phase, p.status.start_time) for p in view.running[:2]
        ),
    )


def starting(view: View) -> Cause | None:
    """Pods have a node and are about to start; nothing has gone wrong yet."""
    if not view.starting:
        return None
    pulling = [
        e for e in view.said("Pulling") if e.about.name in {pod.metadata.name for pod in view.starting}
    ]
    doing = f": {pulling[-1].text}" if pulling else ""
    names = some([pod.metadata.name for pod in view.starting])
    return Cause(
        code=Code.STARTING,
        text=f"{len(view.starting)} of {view.wanted} pods have a node and are being started ({names}){doing}.",
        remedy="Wait; a first pull of a large image takes minutes.",
        weight=Weight.REST + 0.1,
        evidence=(
            fact(
                view.starting[0].ref, "status.phase", "Pending", view.starting[0].metadata.creation_timestamp
            ),
            *(from_event(event) for event in pulling[-1:]),
        ),
    )


def unknown(view: View) -> Cause:
    """Nothing in the dump explains the job."""
    return Cause(
        code=Code.UNKNOWN,
        text=f"Nothing in the dump explains it: {view.job.status.active} pods active, {view.job.status.failed} failed, "
        f"{len(view.events)} events. Events last for an hour.",
        remedy="Dump again with pods, events, nodes, quotas and podgroups; is the controller manager running?",
        weight=0.0,
        evidence=(fact(view.job.ref, "status.active", view.job.status.active),),
    )
