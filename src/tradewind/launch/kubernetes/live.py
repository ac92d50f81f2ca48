"""Why a Job of a cluster that is asked stands where it does: what the rules need of it, fetched, then the same rules."""

from typing import TYPE_CHECKING, NamedTuple

from tradewind.errors import ClusterError, NotFoundError
from tradewind.launch.kubernetes.cluster import Cluster
from tradewind.launch.kubernetes.context import Context
from tradewind.launch.kubernetes.look import (
    ACCOUNTS,
    CLAIMS,
    CLUSTER_QUEUES,
    CONFIGS,
    EVENTS,
    LOCAL_QUEUES,
    NODES,
    PLACED,
    POD_GROUPS,
    POLICIES,
    PRIORITIES,
    QUOTAS,
    SERVICES,
    STORAGE,
    WORKLOADS,
    Source,
    look,
)
from tradewind.launch.kubernetes.place import cluster_of, place_of
from tradewind.launch.why import Explanation, explain
from tradewind.launch.why.kinds import Job
from tradewind.launch.why.local import explain_run
from tradewind.launch.why.pods import Pod

if TYPE_CHECKING:
    from tradewind.store import Run, Store

_AROUND = (
    *(PLACED, EVENTS, NODES, POD_GROUPS, WORKLOADS, QUOTAS, CONFIGS, ACCOUNTS, PRIORITIES),
    *(CLAIMS, STORAGE, SERVICES, POLICIES, LOCAL_QUEUES, CLUSTER_QUEUES),
)


class Answer(NamedTuple):
    """An explanation, and what it had to do without: one sentence each."""

    found: Explanation
    without: tuple[str, ...] = ()


def explain_job(context: Context, name: str) -> Answer:
    """Explain the Job of this name in the context's namespace, whoever made it.

    Raises NotFoundError when it is not there, and ClusterError when the cluster cannot be asked.
    """
    with Cluster(context) as cluster:
        answer = _explain(cluster, name)
    if answer is None:
        raise NotFoundError(
            f"job/{name}: there is none in namespace {cluster.namespace} of {cluster.url}; "
            "`kubectl get jobs -A` lists all, --namespace chooses where to look"
        )
    return answer


def explain_there(run: "Run", store: "Store") -> Answer:
    """Explain a run that went to a cluster; by what was recorded once its Job is gone or cannot be asked for."""
    place = place_of(run)
    assert place is not None, "the caller asked for a run on a cluster"
    try:
        with cluster_of(place) as cluster:
            answer = _explain(cluster, place.job)
    except ClusterError as error:
        return Answer(_recorded(run, store), (f"by what was recorded: {error}",))
    return answer or Answer(
        _recorded(run, store), (f"by what was recorded: Job {place.job} is no longer on {place.on}",)
    )


def _recorded(run: "Run", store: "Store") -> Explanation:
    return explain_run(run, store.events(run.id), store.attempts(run.id))


def _explain(cluster: Cluster, name: str) -> Answer | None:
    """None without such a Job."""
    seen = look(cluster, (*_AROUND, *_of(name)))
    if "Job" not in seen.world.complete:
        raise ClusterError(
            f"cluster {cluster.url}: {next(line for line in seen.unread if line.startswith('jobs'))}"
        )
    if not seen.world.all(Job):
        return None
    return Answer(explain(seen.world, f"job/{name}", cluster.namespace), seen.unread)


def _of(name: str) -> tuple[Source, Source]:
    """The Job itself and its pods, as they are now."""
    selects = {"fieldSelector": f"metadata.name={name}"}
    pods = {"labelSelector": f"batch.kubernetes.io/job-name={name}"}
    return (
        Source("Job", Job, ("batch/v1",), "jobs", selects=selects, fresh=True),
        Source("Pod", Pod, ("v1",), "pods", selects=pods, fresh=True),
    )
