"""A cluster's API as plain data: what a launcher asks of it, and errors that say what to do.

lightkube reads kubeconfigs and credentials and makes the connection. Objects stay dictionaries: typed models
would drop the fields that they do not know yet, silently.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from tradewind import names
from tradewind.errors import ClusterError, MissingExtraError, SpecError
from tradewind.launch.kubernetes.context import Context
from tradewind.launch.kubernetes.request import Capabilities

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"
ONLY_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
TIMEOUT_S = 30.0
CONNECT_S = 5.0
"""A cluster that is away must not hold up `ps` for long."""
WATCH_S = 300
"""The server ends a watch after so long; a connection that is silent beyond it is dead."""
_REMEDIES = {
    401: "log in again, or name another context of the kubeconfig in `context`",
    403: "ask for the Role in deploy/kubernetes/rbac.yaml in this namespace",
}


class Cluster:
    """One namespace of one cluster.

    `open_async` makes a second connection, for streams that are read side by side (see `logs.py`).
    """

    def __init__(self, context: Context) -> None:
        config, client, self.open_async = connect(context)
        self.namespace: str = context.namespace or config.namespace
        self.url: str = config.cluster.server
        self._http = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def capabilities(self) -> Capabilities:
        """What this cluster has for gangs and queues."""
        groups = self.call("GET", "/apis")["groups"]
        served = {version["groupVersion"] for group in groups for version in group["versions"]}
        native = "scheduling.k8s.io/v1beta1" in served and any(
            resource["name"] == "podgroups"
            for resource in self.call("GET", "/apis/scheduling.k8s.io/v1beta1")["resources"]
        )
        return Capabilities(
            native_gangs=native,
            kueue=any(name.startswith("kueue.x-k8s.io/") for name in served),
            gateway="gateway.networking.k8s.io/v1" in served,
            pod_monitor="monitoring.coreos.com/v1" in served,
        )

    def apply(
        self, manifest: Mapping[str, Any], *, dry_run: bool = False, manager: str = names.FIELD_MANAGER
    ) -> Object:
        """Make an object or bring it to this state, by server-side apply; unknown fields are refused."""
        params = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        params |= {"dryRun": "All"} if dry_run else {}
        path = self.path(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])
        return self.call("PATCH", path, manifest, params=params, headers={"Content-Type": APPLY})

    def get(self, api_version: str, kind: str, name: str) -> Object | None:
        """One object; None when it is not there."""
        return self.call("GET", self.path(api_version, kind, name), absent_ok=True) or None

    def list(
        self, api_version: str, kind: str, labels: str = "", *, fields: str = "", only_metadata: bool = False
    ) -> list[Object]:
        """The objects with these labels and fields; with `only_metadata` nothing else of them is sent."""
        headers = {"Accept": ONLY_METADATA} if only_metadata else {}
        given = {"labelSelector": labels, "fieldSelector": fields}
        params = {name: text for name, text in given.items() if text}
        listed = self.call("GET", self.path(api_version, kind), params=params, headers=headers)
        return list_items(listed)

    def delete(self, api_version: str, kind: str, name: str, *, grace_s: int | None = None) -> None:
        """Delete an object and then what it owns; nothing happens when it is gone already."""
        body: Object = {"propagationPolicy": "Foreground"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        self.call("DELETE", self.path(api_version, kind, name), body, absent_ok=True)

    def watch(self, api_version: str, kind: str, labels: str) -> Iterator[tuple[str, Object]]:
        """The list (`LISTED`) of objects with these labels, then every change, for as long as it is read.

        Between two connections nothing is missed: what exists is listed anew.
        """
        path = self.path(api_version, kind)
        while True:
            listed = self.call("GET", path, params={"labelSelector": labels})
            yield "LISTED", listed
            params = {"labelSelector": labels, "watch": "1"}
            params |= {
                "resourceVersion": listed["metadata"]["resourceVersion"],
                "timeoutSeconds": str(WATCH_S),
            }
            for line in self.lines(path, params, silence_s=WATCH_S + TIMEOUT_S):
                change = json.loads(line)
                if change["type"] == "ERROR":  # The version is too old to go on from: list again.
                    break
                yield change["type"], change["object"]

    def lines(self, path: str, params: Mapping[str, str], silence_s: float | None = None) -> Iterator[str]:
        """What the server sends, line by line, until it closes; it may be silent for `silence_s`."""
        with self.named_errors("GET", path):
            with self._http.stream("GET", path, params=params, timeout=timeout(silence_s)) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise self.refused("GET", path, answer)
                yield from answer.iter_lines()

    def logs(
        self, pod: str, container: str, *, follow: bool = False, previous: bool = False
    ) -> Iterator[str]:
        """The lines that a container wrote."""
        params = {"container": container, "follow": str(follow).lower(), "previous": str(previous).lower()}
        yield from self.lines(f"{self.path('v1', 'Pod', pod)}/log", params)

    def path(self, api_version: str, kind: str, name: str | None = None) -> str:
        """Where objects of a kind are, or one of them."""
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        collection = f"{root}/namespaces/{self.namespace}/{plural(kind)}"
        return f"{collection}/{name}" if name else collection

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        absent_ok: bool = False,
    ) -> Object:
        """One request; raises ClusterError with the server's own words."""
        sent = {"Content-Type": "application/json"} | dict(headers or {})
        content = None if body is None else json.dumps(body).encode()
        try:
            found: Object = msgspec.json.decode(self.send(method, path, content, params, sent))
        except Refused as error:
            if error.status == 404 and absent_ok:
                return {}
            raise
        return found

    def send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The bytes of one answer, for readers with types of their own; raises ClusterError."""
        with self.named_errors(method, path):
            answer = self._http.request(
                method, path, content=content, params=params, headers=headers, timeout=timeout(TIMEOUT_S)
            )
        if answer.status_code >= 400:
            raise self.refused(method, path, answer)
        body: bytes = answer.content
        return body

    def refused(self, method: str, path: str, answer: Any) -> ClusterError:
        """What the server said, where, and what helps."""
        try:
            said = str(answer.json()["message"])
        except (ValueError, KeyError, TypeError):
            said = answer.text.strip()[:500] or f"HTTP {answer.status_code}"
        remedy = _REMEDIES.get(answer.status_code)
        text = f"cluster {self.url}: {method} {path}: {said}" + (f"; {remedy}" if remedy else "")
        return Refused(text, answer.status_code)

    @contextlib.contextmanager
    def named_errors(self, method: str, path: str) -> Iterator[None]:
        """What goes wrong with the connection, as an error that says where and what to do."""
        import httpx2
        from lightkube.core.exceptions import ConfigError

        try:
            yield
        except httpx2.TransportError as error:
            raise ClusterError(
                f"cluster {self.url} cannot be reached for {method} {path}: {error or type(error).__name__}; "
                "try `kubectl cluster-info`, and see `context` and `kubeconfig` of the context"
            ) from error
        except ConfigError as error:
            raise ClusterError(f"cluster {self.url}: no credentials: {error}") from error


class Refused(ClusterError):
    """The API server understood and said no; `status` is its HTTP code."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def plural(kind: str) -> str:
    """How paths name the objects of a kind."""
    lower = kind.lower()
    return f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}s"


def timeout(silence_s: float | None) -> Any:
    """How long to wait for a connection, and then for its next word; without an end when None."""
    import httpx2

    return httpx2.Timeout(TIMEOUT_S, connect=CONNECT_S, read=silence_s)


def list_items(listed: Object) -> list[Object]:
    """The objects of a list; an empty one may be `null` on the wire."""
    return listed["items"] or []


def connect(context: Context) -> tuple[Any, Any, Callable[[], Any]]:
    """The kubeconfig's context, a connection with its credentials, and how to make an asynchronous one.

    Raises MissingExtraError without lightkube, and SpecError when there is no such kubeconfig or context.
    """
    try:
        from lightkube.config.client_adapter import AsyncClient, Client, ConnectionParams
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.core.exceptions import ConfigError
    except ImportError:
        raise MissingExtraError("Kubernetes needs lightkube: pip install 'tradewind[k8s]'") from None
    try:
        found = KubeConfig.from_file(context.kubeconfig) if context.kubeconfig else KubeConfig.from_env()
        config: Any = found.get(context.context)
        return config, Client(config, ConnectionParams()), lambda: AsyncClient(config, ConnectionParams())
    except (ConfigError, KeyError, OSError, ValueError) as error:
        where = context.kubeconfig or "$KUBECONFIG or ~/.kube/config"
        raise SpecError(
            f"kubeconfig: {where}: {error}; `kubectl config get-contexts` lists what is there"
        ) from None
