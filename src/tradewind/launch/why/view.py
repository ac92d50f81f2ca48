"""One job of a dump with everything that belongs to it."""

import functools
import re

from tradewind import names
from tradewind.errors import NotFoundError, SpecError
from tradewind.launch.why.cause import Evidence, fact
from tradewind.launch.why.dump import World
from tradewind.launch.why.kinds import Event, Job, PodGroup, Workload
from tradewind.launch.why.pods import Condition, Pod

_INDEX = "batch.kubernetes.io/job-completion-index"
_JOB_NAMES = ("batch.kubernetes.io/job-name", "job-name")


def find_job(world: World, ref: str, namespace: str | None = None) -> Job:
    """The job that `job/NAME`, a run's id (or its start) or a job's name means; raises NotFoundError."""
    jobs, name = world.all(Job, namespace), ref.removeprefix("job/")
    found = [job for job in jobs if job.metadata.name == name]
    if not found and not ref.startswith("job/"):
        found = [job for job in jobs if job.metadata.labels.get(names.LABEL_RUN, "").startswith(ref or "?")]
    if not found:
        raise NotFoundError(f"{ref}: {_nearest(name, [job.metadata.name for job in jobs])}")
    if len({job.metadata.labels.get(names.LABEL_RUN) for job in found if job.metadata.name != name}) > 1:
        raise SpecError(f"{ref}: several runs begin so; give more of the id")
    if len({job.metadata.namespace for job in found}) > 1:
        places = ", ".join(sorted({job.metadata.namespace for job in found}))
        raise SpecError(f"{ref}: there is one in each of the namespaces {places}; choose with --namespace")
    return found[-1]


def _nearest(name: str, known: list[str]) -> str:
    if not known:
        return "the dump holds no Job; was `jobs` among what kubectl was asked for?"
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean job/{near[0]}?" if near else f"it has {', '.join(sorted(known)[:8])}"
    return f"no such job in the dump; {hint}"


class View:
    """A job, its pods (oldest first), the events about either (oldest first), and the rest of the cluster."""

    def __init__(self, world: World, job: Job) -> None:
        self.world, self.job = world, job
        self.namespace = job.metadata.namespace
        self.pods = sorted(filter(self._is_mine, world.all(Pod, self.namespace)), key=born)

    def _is_mine(self, pod: Pod) -> bool:
        owners = pod.metadata.owner_references
        if owners and self.job.metadata.uid:
            return any(owner.uid == self.job.metadata.uid for owner in owners)
        return any(pod.metadata.labels.get(key) == self.job.metadata.name for key in _JOB_NAMES)

    @functools.cached_property
    def events(self) -> list[Event]:
        """Events about the job or a pod of it, also of pods that are gone."""
        named = re.compile(rf"{re.escape(self.job.metadata.name)}(-\d+)?-[a-z0-9]{{5}}")
        uids = {pod.metadata.uid for pod in self.pods if pod.metadata.uid}
        found = []
        for event in self.world.all(Event, self.namespace):
            about = event.about
            mine = about.kind == "Job" and about.name == self.job.metadata.name
            if mine or (about.kind == "Pod" and (about.uid in uids or named.fullmatch(about.name))):
                found.append(event)
        return sorted(found, key=lambda event: event.time)

    def said(self, *reasons: str, pod: Pod | None = None) -> list[Event]:
        """The events with one of these reasons, oldest first."""
        found = [event for event in self.events if event.reason in reasons]
        return found if pod is None else [event for event in found if event.about.name == pod.metadata.name]

    @property
    def wanted(self) -> int:
        """How many pods the job should have at work now."""
        spec, done = self.job.spec, self.job.status.succeeded
        if spec.suspend or self.ended:
            return 0
        return (
            spec.parallelism if spec.completions is None else min(spec.parallelism, spec.completions - done)
        )

    @functools.cached_property
    def ended(self) -> Condition | None:
        """The condition that ended the job, or is about to."""
        by_type = {c.type: c for c in self.job.status.conditions if c.status == "True"}
        kinds = ("Complete", "SuccessCriteriaMet", "Failed", "FailureTarget")
        return next((by_type[kind] for kind in kinds if kind in by_type), None)

    @functools.cached_property
    def alive(self) -> list[Pod]:
        """Pods that neither ended nor are told to."""
        return [
            pod
            for pod in self.pods
            if pod.status.phase not in ("Succeeded", "Failed") and not pod.metadata.deletion_timestamp
        ]

    @functools.cached_property
    def unplaced(self) -> list[Pod]:
        """Pods that no node was found for."""
        return [pod for pod in self.alive if not pod.spec.node_name]

    @functools.cached_property
    def starting(self) -> list[Pod]:
        """Pods on a node that do not run yet."""
        return [pod for pod in self.alive if pod.spec.node_name and pod.status.phase != "Running"]

    @functools.cached_property
    def by_index(self) -> dict[str, list[Pod]]:
        """The pods that had, one after the other, the same completion index."""
        found: dict[str, list[Pod]] = {}
        for pod in self.pods:
            found.setdefault(index_of(pod), []).append(pod)
        return found

    @functools.cached_property
    def running(self) -> list[Pod]:
        return [pod for pod in self.alive if pod.status.phase == "Running"]

    @property
    def missing(self) -> int:
        """Pods that should exist and do not."""
        return max(0, self.wanted - len(self.alive))

    @functools.cached_property
    def group(self) -> PodGroup | None:
        """The gang of the job's pods."""
        spec = self.job.spec.template.spec
        labels = self.job.spec.template.metadata.labels | self.job.spec.template.metadata.annotations
        named = {
            spec.scheduling_group.pod_group_name,
            *(pod.spec.scheduling_group.pod_group_name for pod in self.pods),
        }
        named |= {
            labels.get("scheduling.x-k8s.io/pod-group", ""),
            labels.get("scheduling.k8s.io/group-name", ""),
        }
        groups = self.world.all(PodGroup, self.namespace)
        return next((group for group in groups if group.metadata.name in named - {""}), None)

    @functools.cached_property
    def workload(self) -> Workload | None:
        """Kueue's object for the job."""
        for workload in self.world.all(Workload, self.namespace):
            owners = workload.metadata.owner_references
            if any(owner.kind == "Job" and owner.name == self.job.metadata.name for owner in owners):
                return workload
        return None


def born(pod: Pod) -> tuple[str, str]:
    """Order of creation."""
    return pod.metadata.creation_timestamp, pod.metadata.name


def index_of(pod: Pod) -> str:
    """The completion index of a pod; its name where it has none, so that it stands for itself."""
    return pod.metadata.annotations.get(_INDEX) or pod.metadata.labels.get(_INDEX) or pod.metadata.name


def condition(conditions: tuple[Condition, ...], type: str) -> Condition | None:
    return next((each for each in conditions if each.type == type), None)


def from_event(event: Event) -> Evidence:
    """An event as evidence."""
    about = event.about
    place = f"{about.namespace}/" if about.namespace else ""
    return fact(f"{place}{about.kind.lower()}/{about.name}", f"event {event.reason}", event.text, event.time)


def from_condition(ref: str, found: Condition) -> Evidence:
    """A condition as evidence."""
    said = ": ".join(part for part in (found.reason, found.message) if part)
    return fact(
        ref, f"status.conditions[{found.type}]", f"{found.status} {said}".strip(), found.last_transition_time
    )


def some(names: list[str], limit: int = 4) -> str:
    """A few names, and how many more."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
