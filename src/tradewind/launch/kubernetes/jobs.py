"""The Jobs of all runs in one namespace and their pods, as `ps` looks at them."""

from concurrent.futures import ThreadPoolExecutor
from typing import NotRequired, TypedDict, cast

import msgspec

from tradewind import names
from tradewind.errors import ClusterError, TradewindError
from tradewind.launch.kubernetes.cluster import Cluster, Object
from tradewind.launch.kubernetes.place import Place, cluster_of

MANAGED = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER}"
Listed = tuple[list[Object], list[Object]]
"""The Jobs there, and their pods beyond Pending: of the others nothing is told."""


class _JobMeta(TypedDict):
    name: str


class _JobSpec(TypedDict):
    suspend: NotRequired[bool]


class _Job(TypedDict):
    """What `observe` looks at of a Job: of 200 of them, a twentieth of what the API server sends."""

    metadata: _JobMeta
    spec: _JobSpec
    status: NotRequired[Object]


class _Jobs(TypedDict):
    items: list[_Job] | None


def ask_for_all(place: Place) -> Listed | TradewindError:
    """Every run's Job in one namespace and its pods, asked side by side; or why not."""
    try:
        with cluster_of(place) as cluster, ThreadPoolExecutor(1) as beside:
            pods = beside.submit(cluster.list, "v1", "Pod", MANAGED, fields="status.phase!=Pending")
            return jobs_of(cluster), pods.result()
    except TradewindError as error:
        return error


def jobs_of(cluster: Cluster) -> list[Object]:
    """Every run's Job in one namespace, with nothing but what `observe` looks at."""
    path = cluster.path("batch/v1", "Job")
    answer = cluster.send("GET", path, params={"labelSelector": MANAGED})
    try:
        return cast("list[Object]", msgspec.json.decode(answer, type=_Jobs)["items"] or [])
    except msgspec.DecodeError as error:
        raise ClusterError(
            f"cluster {cluster.url}: GET {path}: its answer cannot be read: {error}"
        ) from error
