"""How a run on a cluster is, worked out from its Job and pods, and what the store is told of it."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from tradewind import names
from tradewind.errors import TradewindError
from tradewind.launch.kubernetes.cluster import Cluster, Object, list_items
from tradewind.launch.kubernetes.jobs import ask_for_all
from tradewind.launch.kubernetes.place import Place, cluster_of, place_of
from tradewind.launch.kubernetes.times import seconds

if TYPE_CHECKING:
    from tradewind.store import Run, Store

OVER = ("succeeded", "failed", "stopped")
"""States that a run on a cluster does not leave; one that is requeued is started again by its Job."""
JOB = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"
_PARALLEL = 8


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is, in the store's words, and why."""

    state: str
    started_s: float | None = None
    ended_s: float | None = None
    exit_code: int | None = None
    reason: str | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A container that ended with something else than 0; they compare by when."""

    at_s: float
    host: int
    exit_code: int
    reason: str
    pod: str
    container: str

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason not in ("", "Error") else ""
        return f"host {self.host}: {self.container} ended with {self.exit_code}{why}"


def observe(job: Object | None, pods: Sequence[Object]) -> Observed:
    """How a run with this Job and these pods is; without a Job it is over, and how is not known."""
    if job is None:
        return Observed(state="failed", exit_code=names.ExitCode.FAILED, reason="its Job was deleted")
    status = job.get("status", {})
    started_s = first_start(pods)
    done, failed = condition(job, "Complete"), condition(job, "Failed")
    if done:
        ended_s = seconds(status.get("completionTime") or done.get("lastTransitionTime"))
        return Observed(state="succeeded", started_s=started_s, ended_s=ended_s, exit_code=0)
    if failed:
        return observe_failed(failed, pods, started_s)
    if any(pod.get("status", {}).get("phase") == "Running" for pod in pods):
        return Observed(state="running", started_s=started_s)
    reason = "suspended" if job["spec"].get("suspend") else None
    return Observed(state="pending", started_s=started_s, reason=reason)


def observe_failed(failed: Object, pods: Sequence[Object], started_s: float | None) -> Observed:
    """How a run failed: its first container that did, else what the Job says."""
    first = first_failure(pods)
    said = f"{failed.get('reason', '')}: {failed.get('message', '')}".strip(": ")
    return Observed(
        state="stopped" if first and first.exit_code == names.ExitCode.INTERRUPTED else "failed",
        started_s=started_s,
        ended_s=seconds(failed.get("lastTransitionTime")),
        exit_code=first.exit_code if first else names.ExitCode.FAILED,
        reason=f"{first}; {said}" if first else said,
    )


def condition(obj: Object, kind: str) -> Object | None:
    """The condition of this type, if it is true."""
    for found in obj.get("status", {}).get("conditions", ()):
        if found["type"] == kind and found["status"] == "True":
            return dict(found)
    return None


def first_failure(pods: Iterable[Object]) -> Ended | None:
    """The container that failed by itself before any other; one that was asked to end did not."""
    found = [ended for pod in pods for ended in endings(pod)]
    own = [ended for ended in found if ended.exit_code not in (names.ExitCode.REQUEUE, 143)]
    return min(own or found, default=None)


def endings(pod: Object) -> list[Ended]:
    """The containers of a pod that ended with something else than 0, in this life or an earlier one."""
    found = []
    for status in statuses(pod):
        for life in (status.get("lastState", {}), status.get("state", {})):
            end = life.get("terminated")
            if end and end["exitCode"] != 0:
                found.append(
                    Ended(
                        at_s=seconds(end.get("finishedAt")) or 0.0,
                        host=index_of(pod),
                        exit_code=end["exitCode"],
                        reason=end.get("reason", ""),
                        pod=pod["metadata"]["name"],
                        container=status["name"],
                    )
                )
    return found


def statuses(pod: Object) -> list[Object]:
    """What is known of a pod's containers, in the order in which they run."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def index_of(pod: Object) -> int:
    """Which host of the run a pod is."""
    return int(pod["metadata"].get("labels", {}).get(INDEX, 0))


def first_start(pods: Iterable[Object]) -> float | None:
    """When the first pod was on a node."""
    times = [seconds(pod.get("status", {}).get("startTime")) for pod in pods]
    return min((t for t in times if t is not None), default=None)


def pending_reason(pod: Object) -> str | None:
    """What a pod waits for, in the cluster's words; None once its agent runs or has run."""
    for status in statuses(pod):
        waiting = status.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}".strip(": ")
    if pod.get("status", {}).get("phase") not in (None, "Pending"):
        return None
    for found in pod.get("status", {}).get("conditions", ()):
        if found["type"] == "PodScheduled" and found["status"] == "False":
            return f"{found.get('reason', '')}: {found.get('message', '')}".strip(": ")
    return "starting" if pod["spec"].get("nodeName") else "waiting for a node"


def refresh(run: "Run", store: "Store") -> "Run":
    """The run as its cluster says it is; raises ClusterError when the cluster cannot be asked."""
    place = place_of(run)
    if place is None or run.state in OVER:
        return run
    with cluster_of(place) as cluster:
        job = cluster.get("batch/v1", "Job", place.job)
        return keep(run, job, pods_of(run.id, cluster), store)


Key = tuple[str, str, str]
"""A namespace of a cluster: as it was asked for, the API server's address, the namespace."""


def refresh_all(runs: Sequence["Run"], store: "Store") -> tuple[list["Run"], list[str]]:
    """All runs as their clusters say they are, with two requests for each namespace, and what could not be asked."""
    asked: dict[Key, Place] = {}
    for run in runs:
        place = place_of(run)
        if place is not None and run.state not in OVER:
            asked.setdefault((place.on, place.cluster, place.namespace), place)
    jobs: dict[Key, dict[str, Object]] = {}
    pods: dict[str, list[Object]] = {}
    problems = []
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for key, answer in zip(asked, pool.map(ask_for_all, asked.values()), strict=True):
            if isinstance(answer, TradewindError):
                problems.append(str(answer))
                continue
            jobs[key] = {job["metadata"]["name"]: job for job in answer[0]}
            for pod in answer[1]:
                pods.setdefault(pod["metadata"]["labels"].get(names.LABEL_RUN, ""), []).append(pod)
    return [refreshed(run, jobs, pods, store) for run in runs], problems


def refreshed(
    run: "Run",
    jobs: Mapping[Key, Mapping[str, Object]],
    pods: Mapping[str, Sequence[Object]],
    store: "Store",
) -> "Run":
    """One run, given what was found on all clusters that could be asked."""
    place = place_of(run)
    if place is None or run.state in OVER:
        return run
    found = jobs.get((place.on, place.cluster, place.namespace))
    if found is None:
        return run
    job, own = found.get(place.job), pods.get(run.id, ())
    return run if is_known(run, observe(job, own)) else keep(run, job, own, store)


def keep(run: "Run", job: Object | None, pods: Sequence[Object], store: "Store") -> "Run":
    """Tell the store how a run is, if it does not know yet."""
    run = store.run(run.id)  # Its own agents may have said how it ended while the cluster was asked.
    seen = observe(job, pods)
    if run.state in OVER or is_known(run, seen):
        return run
    ended_s = seen.ended_s or (datetime.datetime.now().timestamp() if seen.state in OVER else None)
    if seen.state in OVER:
        note_end(run, seen, ended_s, store)
    started_s = run.started_s or seen.started_s
    return store.update_run(
        run.id, state=seen.state, started_s=started_s, ended_s=ended_s, exit_code=seen.exit_code
    )


def is_known(run: "Run", seen: Observed) -> bool:
    """Whether a run is as it was last seen."""
    told = (seen.state, run.started_s or seen.started_s, seen.ended_s, seen.exit_code)
    return told == (run.state, run.started_s, run.ended_s, run.exit_code)


def note_end(run: "Run", seen: Observed, ended_s: float | None, store: "Store") -> None:
    """Leave the reason in the run's attempts, unless its agents kept attempts themselves."""
    from tradewind.store import Attempt

    if not store.attempts(run.id):
        start = run.started_s or seen.started_s or run.created_s
        store.add_attempt(
            Attempt(
                run=run.id,
                index=0,
                state=seen.state,  # type: ignore[arg-type]
                started_s=start,
                ended_s=ended_s,
                exit_code=seen.exit_code,
                reason=seen.reason,
            )
        )


def pods_of(run: str, cluster: Cluster) -> list[Object]:
    """Every pod of a run, by host and then by age."""
    found = cluster.list("v1", "Pod", f"{names.LABEL_RUN}={run}")
    return sorted(found, key=lambda pod: (index_of(pod), pod["metadata"]["creationTimestamp"]))


def stop(run: "Run", store: "Store", *, now: bool = False) -> "Run":
    """Delete the run's Job and wait until its pods are gone; their agents checkpoint in the time they have.

    Raises TradewindError when the run is over already.
    """
    place = place_of(run)
    assert place is not None, "the caller asked for a run on a cluster"
    with cluster_of(place) as cluster:
        run = keep(run, cluster.get("batch/v1", "Job", place.job), pods_of(run.id, cluster), store)
        if run.state in OVER:
            raise TradewindError(f"run {run.id} does not run on {place.on}; it is {run.state}")
        cluster.delete("batch/v1", "Job", place.job)
        for pod in pods_of(run.id, cluster) if now else ():
            cluster.delete("v1", "Pod", pod["metadata"]["name"], grace_s=1)
        until_gone(run.id, cluster)
    seen = Observed(
        state="stopped", exit_code=names.ExitCode.INTERRUPTED, reason="stopped by `tradewind stop`"
    )
    ended_s = datetime.datetime.now().timestamp()
    if store.run(run.id).state not in OVER:
        note_end(run, seen, ended_s, store)
    return store.update_run(run.id, state=seen.state, ended_s=ended_s, exit_code=int(seen.exit_code or 0))


def until_gone(run: str, cluster: Cluster) -> None:
    """Return once the Job of a run has left the cluster, which it does after its pods."""
    there: set[str] = set()
    for kind, obj in cluster.watch("batch/v1", "Job", f"{names.LABEL_RUN}={run}"):
        if kind == "LISTED":
            there = {item["metadata"]["uid"] for item in list_items(obj)}
        elif kind == "DELETED":
            there.discard(obj["metadata"]["uid"])
        if not there:
            return
