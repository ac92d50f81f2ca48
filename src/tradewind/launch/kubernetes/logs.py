"""What the hosts of a run write, and what they wait for before they do."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

import msgspec

from tradewind import names
from tradewind.errors import ClusterError
from tradewind.launch.kubernetes.cluster import TIMEOUT_S, WATCH_S, Cluster, Object, list_items, timeout
from tradewind.launch.kubernetes.status import (
    condition,
    first_failure,
    index_of,
    pending_reason,
    pods_of,
    statuses,
)


class Line(msgspec.Struct, frozen=True):
    """One line of a host's output, or (`about`) what is to be said of the host itself."""

    host: int
    text: str
    about: bool = False


def print_lines(run: str, cluster: Cluster, host: int | None = None) -> Iterator[Line]:
    """The logs of all hosts so far, after the first failure: every pod that is still known, every life of it."""
    pods = pods_of(run, cluster)
    failure = first_failure(pods)
    if failure is not None:
        yield Line(failure.host, f"first failure: {failure}", about=True)
    for pod in pods:
        if host in (None, index_of(pod)):
            yield from whole_log(pod, cluster)


def whole_log(pod: Object, cluster: Cluster) -> Iterator[Line]:
    """What every container of a pod wrote, the life before this one too, else what it waits for."""
    reason = pending_reason(pod)
    if reason:
        yield Line(index_of(pod), reason, about=True)
    for status in statuses(pod):
        lives = [True] * bool(status.get("restartCount")) + [False] * has_begun(status)
        for previous in lives:
            for text in cluster.logs(pod["metadata"]["name"], status["name"], previous=previous):
                yield Line(index_of(pod), text)


def has_begun(status: Object) -> bool:
    """Whether a container has written, or could have."""
    state = status.get("state", {})
    return "running" in state or "terminated" in state


def follow(run: str, cluster: Cluster, emit: Callable[[Line], None], host: int | None = None) -> None:
    """Emit what hosts wait for, then what they write, as it happens, over all their pods, until the Job is over.

    Raises ClusterError when the cluster is lost.
    """
    try:
        asyncio.run(Follower(run, cluster, emit, host).run())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


class Follower:
    """One task for each stream of the API that is read."""

    def __init__(self, run: str, cluster: Cluster, emit: Callable[[Line], None], host: int | None) -> None:
        self._labels = f"{names.LABEL_RUN}={run}"
        self._cluster, self._emit, self._host = cluster, emit, host
        self._over = asyncio.Event()
        self._said: dict[str, str] = {}
        self._logs: dict[tuple[str, str, int], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Read until the Job is over and all that its pods wrote has been emitted."""
        async with self._cluster.open_async() as self._http, asyncio.TaskGroup() as self._tasks:
            watches = [self._watch("v1", "Pod", self._pod), self._watch("batch/v1", "Job", self._job)]
            watching = [self._tasks.create_task(watch) for watch in watches]
            await self._over.wait()
            # What the pods wrote last may not have been seen yet.
            for pod in list_items(await self._list("v1", "Pod")):
                self._pod(pod)
            await asyncio.gather(*self._logs.values())
            for task in watching:
                task.cancel()

    async def _watch(self, api_version: str, kind: str, see: Callable[[Object | None], None]) -> None:
        """Show `see` every object now and whenever it changes, and None when there is none."""
        while True:
            listed = await self._list(api_version, kind)
            found: list[Object | None] = [*list_items(listed)]
            for item in found or [None]:
                see(item)
            params = {"labelSelector": self._labels, "watch": "1", "timeoutSeconds": str(WATCH_S)}
            params["resourceVersion"] = listed["metadata"]["resourceVersion"]
            path = self._cluster.path(api_version, kind)
            async with contextlib.aclosing(self._lines(path, params, WATCH_S + TIMEOUT_S)) as lines:
                async for line in lines:
                    change = json.loads(line)
                    if change["type"] == "ERROR":  # The version is too old to go on from: list again.
                        break
                    see(None if change["type"] == "DELETED" else change["object"])

    async def _list(self, api_version: str, kind: str) -> Object:
        path = self._cluster.path(api_version, kind)
        return await asyncio.to_thread(
            self._cluster.call, "GET", path, params={"labelSelector": self._labels}
        )

    async def _lines(
        self, path: str, params: Mapping[str, str], silence_s: float | None = None
    ) -> AsyncGenerator[str, None]:
        with self._cluster.named_errors("GET", path):
            async with self._http.stream("GET", path, params=params, timeout=timeout(silence_s)) as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                    raise self._cluster.refused("GET", path, answer)
                async for line in answer.aiter_lines():
                    yield line

    def _job(self, job: Object | None) -> None:
        if job is None or condition(job, "Complete") or condition(job, "Failed"):
            self._over.set()

    def _pod(self, pod: Object | None) -> None:
        """Say what a pod waits for, and read every container of it that has begun."""
        if pod is None or self._host not in (None, index_of(pod)):
            return
        host, name = index_of(pod), pod["metadata"]["name"]
        reason = pending_reason(pod) or pod.get("status", {}).get("phase", "")
        if self._said.get(name) != reason:
            self._said[name] = reason
            self._emit(Line(host, f"{name}: {reason}", about=True))
        for status in statuses(pod):
            key = (name, status["name"], int(status.get("restartCount", 0)))
            if has_begun(status) and key not in self._logs:
                self._logs[key] = self._tasks.create_task(self._log(host, name, status["name"]))

    async def _log(self, host: int, pod: str, container: str) -> None:
        path = f"{self._cluster.path('v1', 'Pod', pod)}/log"
        try:
            async for text in self._lines(path, {"container": container, "follow": "true"}):
                self._emit(Line(host, text))
        except ClusterError as error:
            # A node that is lost takes its logs along; the run goes on, so its other hosts are still read.
            self._emit(Line(host, f"{pod}: its log cannot be read: {error}", about=True))
