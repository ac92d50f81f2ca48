"""Why pods of a job are not even made: quota, admission, service account, priority class."""

import re

from tradewind.launch.why.amounts import EPSILON, Room, amount, limits_of, need_of, room, shown
from tradewind.launch.why.cause import Cause, Code, Evidence, Weight, fact
from tradewind.launch.why.kinds import Event, Quota
from tradewind.launch.why.pods import PodSpec
from tradewind.launch.why.view import View, from_event

_ASKED = re.compile(r"requested: (\S+?)=(\S+?),.* limited: (\S+?)=([^\s,]+)")
_QUOTA = re.compile(r"exceeded quota: (\S+?),")
_ACCOUNT = re.compile(r'serviceaccount "([^"]+)" not found', re.IGNORECASE)
_PRIORITY = re.compile(r"no PriorityClass with name (\S+) was found")


def refusal(view: View) -> Event | None:
    """The last refusal to make a pod, if pods are still missing."""
    refused = view.said("FailedCreate") if view.missing else []
    return refused[-1] if refused else None


def quota_exceeded(view: View) -> Cause | None:
    """What is left of a quota is too little for the next pod; or the quota itself is."""
    if not view.missing:
        return None
    spec = view.job.spec.template.spec
    for quota in view.world.all(Quota, view.namespace):
        if not _scoped(quota) and (short := _short(quota, spec)):
            return _over(view, quota, short)
    event = refusal(view)
    found = _QUOTA.search(event.text) if event else None
    return _said(view, event, found[1]) if event and found else None


def _scoped(quota: Quota) -> bool:
    """A quota for some pods only; whether it is for these, the API server knows best."""
    return bool(quota.spec.scopes or quota.spec.scope_selector)


def charged(spec: PodSpec) -> Room:
    """What one pod is charged for, by the names that quotas use."""
    need, limits = need_of(spec), limits_of(spec)
    found = {"pods": 1.0, "count/pods": 1.0}
    for name, value in need.items():
        found |= {f"requests.{name}": value} | ({name: value} if name in ("cpu", "memory") else {})
    return found | {f"limits.{name}": value for name, value in limits.items() if name in ("cpu", "memory")}


def _short(quota: Quota, spec: PodSpec) -> list[str]:
    """The resources of a quota of which too little is left for one more pod."""
    hard, used, asks = room(quota.status.hard or quota.spec.hard), room(quota.status.used), charged(spec)
    return [
        name
        for name, value in asks.items()
        if name in hard and used.get(name, 0.0) + value > hard[name] + EPSILON * max(1.0, value)
    ]


def _over(view: View, quota: Quota, short: list[str]) -> Cause:
    name = short[0]
    asks = charged(view.job.spec.template.spec)[name]
    hard, used = room(quota.status.hard or quota.spec.hard), room(quota.status.used)
    never = asks > hard[name] + EPSILON
    text = (
        f"Quota {quota.metadata.name} allows {shown(name, hard[name])} {name}, {shown(name, used.get(name, 0.0))} "
        f"are used, and each pod asks for {shown(name, asks)}: {view.missing} of {view.wanted} pods are not made."
    )
    return Cause(
        code=Code.NEVER_FITS if never else Code.QUOTA_EXCEEDED,
        text=text + (" One pod alone is larger than the whole quota." if never else ""),
        remedy="Ask for less, or have the quota raised; waiting does not help."
        if never
        else "Wait until others in the namespace end, use fewer hosts, or have the quota raised.",
        weight=Weight.BLOCKS + 0.01,
        evidence=(
            fact(quota.ref, f"status.hard[{name}]", shown(name, hard[name])),
            fact(quota.ref, f"status.used[{name}]", shown(name, used.get(name, 0.0))),
            fact(view.job.ref, "spec.template.spec.containers[].resources", f"{shown(name, asks)} {name}"),
            *_refused(view),
        ),
    )


def quota_never_fits(view: View) -> Cause | None:
    """A gang asks for more at once than a quota allows in all."""
    needs, asks = (view.group.needs if view.group else 0), charged(view.job.spec.template.spec)
    for quota in view.world.all(Quota, view.namespace) if needs and view.missing else ():
        hard = room(quota.status.hard or quota.spec.hard)
        over = [n for n in asks if n in hard and asks[n] * needs > hard[n] + EPSILON and not _scoped(quota)]
        if over:
            name = over[0]
            return Cause(
                code=Code.NEVER_FITS,
                text=f"The gang asks for {shown(name, asks[name] * needs)} {name} at once; quota "
                f"{quota.metadata.name} allows {shown(name, hard[name])} in all.",
                remedy="Use fewer hosts, or have the quota raised; waiting does not help.",
                weight=Weight.BLOCKS + 0.02,
                evidence=(fact(quota.ref, f"status.hard[{name}]", shown(name, hard[name])), *_refused(view)),
            )
    return None


def _said(view: View, event: Event, quota: str) -> Cause:
    """By the refusal alone, for a dump without the quota."""
    asked = _ASKED.search(event.text)
    never = bool(asked and asked[1] == asked[3] and amount(asked[2]) > amount(asked[4]) + EPSILON)
    return Cause(
        code=Code.NEVER_FITS if never else Code.QUOTA_EXCEEDED,
        text=f"Quota {quota} refuses further pods ({view.missing} of {view.wanted} are missing): {event.text}",
        remedy="Wait until others in the namespace end, ask for less, or have the quota raised.",
        weight=Weight.BLOCKS,
        evidence=(from_event(event),),
    )


def service_account(view: View) -> Cause | None:
    """The pods are to run as a service account that does not exist."""
    event = refusal(view)
    found = _ACCOUNT.search(event.text) if event else None
    name = view.job.spec.template.spec.service_account_name
    missing = bool(name) and view.world.lacks("ServiceAccount", name, view.namespace)
    if not view.missing or not (found or missing):
        return None
    account = found[1].rsplit("/", 1)[-1] if found else name
    return Cause(
        code=Code.SERVICE_ACCOUNT,
        text=f"The pods run as service account {account}, which does not exist in namespace {view.namespace}.",
        remedy=f"kubectl -n {view.namespace} create serviceaccount {account}, or name one that exists.",
        weight=Weight.BLOCKS,
        evidence=(
            fact(view.job.ref, "spec.template.spec.serviceAccountName", name or account),
            *_refused(view),
        ),
    )


def priority_missing(view: View) -> Cause | None:
    """The pods name a priority class that does not exist."""
    event = refusal(view)
    found = _PRIORITY.search(event.text) if event else None
    name = view.job.spec.template.spec.priority_class_name
    missing = bool(name) and view.world.lacks("PriorityClass", name)
    if not view.missing or not (found or missing):
        return None
    known = sorted(view.world.names("PriorityClass"))
    return Cause(
        code=Code.PRIORITY_MISSING,
        text=f"There is no PriorityClass {name or (found[1] if found else '')}; pods that name it are refused.",
        remedy=f"Name one that exists ({', '.join(known) or 'kubectl get priorityclasses'}), or have it made.",
        weight=Weight.BLOCKS,
        evidence=(fact(view.job.ref, "spec.template.spec.priorityClassName", name), *_refused(view)),
    )


def admission_denied(view: View) -> Cause | None:
    """The API server refuses the pods: a webhook, a policy, pod security, a limit range."""
    event = refusal(view)
    if (
        event is None
        or _QUOTA.search(event.text)
        or _ACCOUNT.search(event.text)
        or _PRIORITY.search(event.text)
    ):
        return None
    return Cause(
        code=Code.ADMISSION_DENIED,
        text=f"The API server refuses {view.missing} of {view.wanted} pods: {_reason(event.text)}",
        remedy=_remedy(event.text),
        weight=Weight.BLOCKS,
        evidence=(from_event(event),),
    )


def _reason(text: str) -> str:
    """The sentence after Kubernetes' own preamble."""
    return re.sub(r"^Error creating: ", "", text).strip()


_REMEDIES = (
    (r"failed calling webhook", "The webhook does not answer: look at its Service and pods, or its failurePolicy."),
    (r"admission webhook", "Change what the webhook objects to, or ask its owners; its message says what."),
    (r"ValidatingAdmissionPolicy", "Change what the policy objects to, or ask its owners; its message says what."),
    (r"PodSecurity", "Set the securityContext that the namespace's pod security level asks for."),
    (r"(maximum|minimum) .* (usage|limit)|must be less than", "Stay within the namespace's LimitRange: kubectl describe limitrange."),
    (r"failed quota|must specify", "Say requests and limits of every resource that the quota counts."),
    (r"RuntimeClass", "Name a RuntimeClass that exists: kubectl get runtimeclasses."),
)  # fmt: skip


def _remedy(text: str) -> str:
    known = (remedy for pattern, remedy in _REMEDIES if re.search(pattern, text))
    return next(known, "Change the pod template as the message says, and submit it again.")


def _refused(view: View) -> tuple[Evidence, ...]:
    event = refusal(view)
    return (from_event(event),) if event else ()
