"""What a cluster did to a run, kept in the store before the cluster forgets it (its Events last an hour)."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tradewind.diagnose.absence import CLUSTER
from tradewind.launch.kubernetes.cluster import Cluster, Object
from tradewind.launch.kubernetes.place import cluster_of, place_of
from tradewind.launch.kubernetes.times import seconds

if TYPE_CHECKING:
    from tradewind.store import Event, Run, Store

WHAT = {
    "Preempted": "preempted",
    "Suspended": "suspended",
    "Resumed": "resumed",
    "TaintManagerEviction": "node_lost",
    "Evicted": "evicted",
    "EvictionByEvictionAPI": "evicted",
}
"""What an Event's reason means for a run; other reasons are no incidents."""
KEPT_S = 3600.0
"""How long an API server keeps Events, unless it is told otherwise."""


def note_incidents(run: "Run", store: "Store") -> None:
    """Add to the store's events of `run` the incidents that its cluster still knows and the store does not.

    Raises ClusterError when the cluster cannot be asked, or does not let Events be read.
    """
    place = place_of(run)
    if place is None or (run.ended_s is not None and time.time() - run.ended_s > KEPT_S):
        return
    known = {event.data.get("key") for event in store.events(run.id, kind=CLUSTER)}
    with cluster_of(place) as cluster:
        found = incidents(run.id, events_about(place.job, cluster))
        new = [event for event in found if event.data["key"] not in known]
        if any(event.data["what"] == "preempted" for event in new):
            groups = cluster.list("scheduling.k8s.io/v1beta1", "PodGroup") if place.gang == "native" else []
            for event in new:
                event.data["said"] = with_names(event.data["said"], groups)
    if new:
        store.add_events(new)


def with_names(text: str, groups: Iterable[Object]) -> str:
    """A scheduler's words with the names of groups where it wrote their uids."""
    for group in groups:
        text = text.replace(group["metadata"]["uid"], group["metadata"]["name"])
    return text


def events_about(job: str, cluster: Cluster) -> Iterator[Object]:
    """The Events of a Job, and those of its pods that are incidents."""
    yield from cluster.list("v1", "Event", fields=f"involvedObject.kind=Job,involvedObject.name={job}")
    for reason in WHAT:
        for event in cluster.list("v1", "Event", fields=f"involvedObject.kind=Pod,reason={reason}"):
            if event["involvedObject"]["name"].startswith(f"{job}-"):
                yield event


def incidents(run: str, found: Iterable[Object]) -> "Iterator[Event]":
    """The store's events for what the cluster's Events say."""
    from tradewind.store import Event

    for event in found:
        at_s, what = when(event), WHAT.get(str(event.get("reason")))
        if what is not None and at_s is not None:
            yield Event(
                run=run,
                attempt=0,
                t_s=at_s,
                kind=CLUSTER,
                data={"what": what, "said": said(event), "key": key(event)} | host(event),
            )


def when(event: Mapping[str, object]) -> float | None:
    """When an Event happened last; writers use one of three fields."""
    series = event.get("series")
    last = series.get("lastObservedTime") if isinstance(series, Mapping) else None
    text = last or event.get("lastTimestamp") or event.get("eventTime")
    return seconds(text) if isinstance(text, str) else None


def said(event: Object) -> str:
    """What an Event says, and of what."""
    about = event["involvedObject"]
    return f"{about['kind']} {about['name']}: {event.get('message', '')}".strip(": ")


def host(event: Object) -> dict[str, str]:
    """Which host of the run an Event is about: its Job's pods are named `JOB-INDEX-RANDOM`."""
    about = event["involvedObject"]
    index = about["name"].rsplit("-", 2)[-2:-1] if about["kind"] == "Pod" else []
    return {"host": f"host {index[0]}"} if index and index[0].isdecimal() else {}


def key(event: Object) -> str:
    """Tells an Event from others, and from itself when it happened again."""
    series = event.get("series") or {}
    return f"{event['metadata']['uid']}/{series.get('count') or event.get('count') or 1}"
