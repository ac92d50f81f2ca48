"""The ranked causes of where a job stands."""

from collections.abc import Iterable

from tradewind.launch.why import creation, endings, gang, incidents, placement, queueing, startup
from tradewind.launch.why.cause import Cause, plain
from tradewind.launch.why.dump import World
from tradewind.launch.why.fit import Bar, Seating
from tradewind.launch.why.messages import from_message
from tradewind.launch.why.view import View, find_job
from tradewind.record import Record, replace


class Explanation(Record):
    """Where a job stands and why; `causes` best first, never empty."""

    job: str
    state: str
    causes: tuple[Cause, ...]


def explain(world: World, ref: str, namespace: str | None = None) -> Explanation:
    """Explain a run or a job of a dump; raises NotFoundError."""
    view = View(world, find_job(world, ref, namespace))
    found = rank(causes(view)) or (endings.unknown(view),)
    return Explanation(job=plain(view.job.ref), state=state_of(view), causes=found)


def rank(found: Iterable[Cause]) -> tuple[Cause, ...]:
    """Heaviest first; of causes with the same code only the heaviest is kept."""
    best: dict[str, Cause] = {}
    for cause in sorted(found, key=lambda cause: -cause.weight):
        best.setdefault(cause.code, replace(cause, text=plain(cause.text), remedy=plain(cause.remedy)))
    return tuple(best.values())


def causes(view: View) -> Iterable[Cause]:
    """Every cause that holds, in no order that matters."""
    happened = incidents.incidents(view)
    yield from (cause for cause in _ends(view, happened) if cause)
    yield from incidents.causes_of(view, happened)
    if view.ended is None:
        yield from (cause for cause in _blocks(view) if cause)


def _ends(view: View, happened: list[incidents.Incident]) -> Iterable[Cause | None]:
    yield endings.completed(view)
    yield endings.deadline(view)
    yield endings.backoff_limit(view, happened)
    yield endings.failure_policy(view, happened)
    yield endings.failed_otherwise(view)


def _blocks(view: View) -> Iterable[Cause | None]:
    """What keeps the job from having all of its pods at work."""
    for each in (
        *(queueing.queue_waiting, queueing.queue_never_fits, queueing.queue_evicted, queueing.suspended),
        *(queueing.scheduling_gate, queueing.scheduler_missing),
        *(creation.quota_exceeded, creation.quota_never_fits, creation.service_account),
        *(creation.priority_missing, creation.admission_denied),
        *(startup.image_pull, startup.config_missing, startup.mount_failed, startup.sandbox_failed),
        *(startup.volume_unbound, endings.unreachable, endings.running, endings.starting),
    ):
        yield each(view)
    waiting = [pod for pod in view.unplaced if not pod.spec.scheduling_gates]
    seating = Seating(view.world, waiting[0]) if waiting else None
    yield gang.gang_incomplete(view, seating if seating and seating.seats else None)
    if seating:
        placed = [cause for cause in _placements(view, seating) if cause]
        yield from placed
        yield None if placed else from_message(view)


def _placements(view: View, seating: Seating) -> Iterable[Cause | None]:
    """Why no node of the dump takes the pods that wait for one."""
    if not seating.seats:
        yield placement.no_nodes(view, seating)
        return
    for each in (
        placement.node_selector,
        placement.node_affinity,
        placement.pod_affinity,
        placement.never_fits,
    ):
        yield each(view, seating)
    for bar in Bar:
        yield placement.barred(view, seating, bar)
    for each in (placement.busy, placement.hidden, gang.gang_never_fits, gang.gang_scattered):
        yield each(view, seating)


def state_of(view: View) -> str:
    """One line: how many pods are where."""
    if view.ended:
        return f"{view.ended.type}: {view.ended.reason}".rstrip(": ")
    if view.job.spec.suspend:
        return "suspended"
    counts = {
        "run": len(view.running),
        "start": len(view.starting),
        "wait for a node": len(view.unplaced),
        "are not made": view.missing,
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{view.wanted} pods wanted: {said or 'none yet'}"
