"""The Kubernetes API as plain dicts over HTTP: what a test needs to make, see and wait for."""

import json
import pathlib
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import msgspec

Object = dict[str, Any]
_CLUSTER_WIDE = frozenset(
    {
        "Namespace", "Node", "PersistentVolume", "PriorityClass", "StorageClass", "ClusterRole",
        "ClusterRoleBinding", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "CustomResourceDefinition",
        "ClusterQueue", "ResourceFlavor", "Topology", "WorkloadPriorityClass", "DeviceClass", "ResourceSlice",
    }
)  # fmt: skip


class ApiError(Exception):
    """The API server refused; `status` is the HTTP code, the text is its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class KubeApi:
    """A client with one user's token; paths are those of the API (`/api/v1/namespaces/x/pods`)."""

    def __init__(self, url: str, certificate: pathlib.Path, token: str) -> None:
        self._http = httpx2.Client(
            base_url=url,
            verify=ssl.create_default_context(cafile=str(certificate)),
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        """Whether the server listens and says that it is ready."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def call(self, method: str, path: str, body: Object | None = None, **how: Any) -> Object:
        """One request; raises ApiError."""
        answer = self._http.request(method, path, json=body, **how)
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, _message(answer.text))
        found: Object = msgspec.json.decode(answer.content)
        return found

    def get(self, path: str) -> Object:
        return self.call("GET", path)

    def items(self, path: str) -> list[Object]:
        """The objects of a collection, each with its `apiVersion` and `kind` as kubectl prints them."""
        return _named(self.call("GET", path))

    def create(self, obj: Object, namespace: str | None = None, dry_run: bool = False) -> Object:
        """Make an object; `namespace` is that of the object when not given."""
        params = {"dryRun": "All"} if dry_run else {}
        return self.call("POST", self.path_of(obj, namespace), obj, params=params)

    def apply(self, obj: Object, namespace: str | None = None, dry_run: bool = False) -> Object:
        """Make or change an object by server-side apply, with the fields checked strictly."""
        path = f"{self.path_of(obj, namespace)}/{obj['metadata']['name']}"
        params = {"fieldManager": "test", "force": "true", "fieldValidation": "Strict"}
        params |= {"dryRun": "All"} if dry_run else {}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self.call("PATCH", path, obj, params=params, headers=headers)

    def patch(self, path: str, change: Object) -> Object:
        """A merge patch; `path` may end in `/status`."""
        return self.call("PATCH", path, change, headers={"Content-Type": "application/merge-patch+json"})

    def delete(self, path: str, grace_s: int | None = None) -> None:
        """Delete an object, or every object of a collection."""
        options: Object = {"propagationPolicy": "Background"}
        options |= {} if grace_s is None else {"gracePeriodSeconds": grace_s}
        self.call("DELETE", path, options)

    def path_of(self, obj: Object, namespace: str | None = None) -> str:
        """The collection that an object belongs to, by the plural that its kind has by rule."""
        version, kind = obj["apiVersion"], obj["kind"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if kind in _CLUSTER_WIDE:
            return f"{root}/{plural(kind)}"
        place = namespace or obj["metadata"].get("namespace", "default")
        return f"{root}/namespaces/{place}/{plural(kind)}"

    def wait(
        self, path: str, until: Callable[[list[Object]], Any], timeout_s: float = 60.0, **params: str
    ) -> list[Object]:
        """The objects of a collection as soon as `until` is true of them; raises TimeoutError."""
        end = time.monotonic() + timeout_s
        for found in self.watch(path, timeout_s, **params):
            if until(found):
                return found
            if time.monotonic() > end:
                break
        raise TimeoutError(f"{path}: waited {timeout_s:g} s, last seen: {json.dumps(found)[-4000:]}")

    def watch(self, path: str, timeout_s: float, **params: str) -> Iterator[list[Object]]:
        """The objects of a collection now, and again after every change of one, until `timeout_s` is over."""
        listed = self.call("GET", path, params=params)
        held = {item["metadata"]["uid"]: item for item in _named(listed)}
        yield list(held.values())
        follow = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
        follow |= {"timeoutSeconds": str(max(1, round(timeout_s)))} | params
        with self._http.stream("GET", path, params=follow, timeout=timeout_s + 10) as stream:
            for line in stream.iter_lines():
                change = msgspec.json.decode(line)
                if change["type"] == "ERROR":
                    raise ApiError(change["object"].get("code", 0), change["object"].get("message", ""))
                held.pop(change["object"]["metadata"]["uid"], None)
                if change["type"] != "DELETED":
                    held[change["object"]["metadata"]["uid"]] = change["object"]
                yield list(held.values())
        yield list(held.values())


def plural(kind: str) -> str:
    """`jobs` of `Job`, `resourceclasses` of `ResourceClass`, `policies` of `Policy`."""
    lower = kind.lower()
    if lower.endswith(("s", "x")):
        return f"{lower}es"
    return f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}s"


def _named(listed: Object) -> list[Object]:
    kind = listed["kind"].removesuffix("List")
    return [{"apiVersion": listed["apiVersion"], "kind": kind} | item for item in listed["items"] or ()]


def _message(text: str) -> str:
    try:
        found: str = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return text
    return found
