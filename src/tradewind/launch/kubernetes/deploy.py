"""Endpoints on a cluster: tried, made or changed as a whole, listed, and taken away."""

from typing import TYPE_CHECKING, Any

import msgspec

from tradewind import names
from tradewind.errors import NotFoundError, TradewindError
from tradewind.launch.kubernetes.cluster import Cluster, Object, list_items
from tradewind.launch.kubernetes.code import Code
from tradewind.launch.kubernetes.context import Context, load_context
from tradewind.launch.kubernetes.endpoint import endpoint_manifests
from tradewind.launch.kubernetes.endpoint_request import Endpoint, make_endpoint
from tradewind.launch.kubernetes.model import find_model
from tradewind.launch.kubernetes.request import Capabilities
from tradewind.launch.kubernetes.submit import owned, travel
from tradewind.spec import DeploymentSpec

if TYPE_CHECKING:
    from tradewind.store import Blobs, Store

APPS = "apps/v1"
ENDPOINTS = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER},{names.LABEL_ENDPOINT}"


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """How an endpoint on a cluster is."""

    name: str
    on: str
    model: str
    ready: int
    wanted: int
    updated: int
    """Replicas of the newest model among them."""
    state: str
    """`serving`, `updating`, `starting`, `stuck` or `draining`."""
    reason: str = ""


def rendered_endpoint(
    spec: DeploymentSpec, on: str, store: "Store", blobs: "Blobs | None" = None
) -> list[dict[str, Any]]:
    """The objects of an endpoint for GitOps, the package included; asks no cluster.

    Raises SpecError for what is wrong in the spec or the context, NotFoundError for an unknown model.
    """
    context = load_context(on)
    known = Capabilities(gateway=spec.route is not None)
    return endpoint_manifests(work_out(spec, context, known, store, blobs))


def work_out(
    spec: DeploymentSpec,
    context: Context,
    capabilities: Capabilities,
    store: "Store",
    blobs: "Blobs | None" = None,
) -> Endpoint:
    """The endpoint that `spec` means; a package without an image or a volume travels by its content."""
    from tradewind.store import open_blobs

    blobs = blobs or open_blobs()
    model, digest = find_model(spec.model, context, store, blobs, spec.name)
    endpoint = make_endpoint(spec, model, context, capabilities)
    if not digest:
        return endpoint
    code = named_after(endpoint.name, travel(digest, blobs, context, None))
    return msgspec.structs.replace(endpoint, model=msgspec.structs.replace(model, code=code))


def named_after(endpoint: str, code: Code) -> Code:
    """The same parts under the endpoint's name: they are its own, and go when no replica of it needs them."""
    names_of = {name: f"{endpoint}-{name.rpartition('-')[2]}" for name in code.names}
    return msgspec.structs.replace(
        code,
        layers=tuple(tuple(names_of[name] for name in layer) for layer in code.layers),
        parts={names_of[name]: data for name, data in code.parts.items()},
    )


def deploy(spec: DeploymentSpec, on: str, store: "Store", blobs: "Blobs | None" = None) -> str:
    """Make an endpoint, or bring one that is there to what `spec` says, replica by replica; its name.

    Raises SpecError as above, and ClusterError when the cluster refuses; a new endpoint leaves nothing then, and one
    that was there keeps its replicas.
    """
    context = load_context(on)
    with Cluster(context) as cluster:
        endpoint = work_out(spec, context, cluster.capabilities(), store, blobs)
        found = cluster.get(APPS, "Deployment", endpoint.name)
        refuse_strangers(found, endpoint)
        objects = endpoint_manifests(endpoint)
        wanted = objects[-1]
        for manifest in objects:
            cluster.apply(manifest, dry_run=True)
        # A new one is made paused, so that it may own the rest before the first replica asks for it.
        owner = owner_of(found or cluster.apply(wanted | {"spec": wanted["spec"] | {"paused": True}}))
        try:
            for manifest in objects[:-1]:
                cluster.apply(owned(manifest, owner))
            cluster.apply(wanted)
        except BaseException:  # also on Ctrl-C: a new one would stay, paused
            if found is None:
                cluster.delete(APPS, "Deployment", endpoint.name)
            raise
        drop_leftovers(endpoint, objects, cluster)
        drop_old_packages(endpoint, objects, cluster)
        return endpoint.name


def owner_of(found: Object) -> Object:
    """A reference to the Deployment, for what goes with it."""
    about = found["metadata"]
    return {"apiVersion": APPS, "kind": "Deployment", "name": about["name"], "uid": about["uid"]}


def refuse_strangers(found: Object | None, endpoint: Endpoint) -> None:
    """Leave a Deployment alone that is somebody else's."""
    if found is None or found["metadata"].get("labels", {}).get(names.LABEL_ENDPOINT) == endpoint.name:
        return
    raise TradewindError(
        f"there is a Deployment {endpoint.name} that is no endpoint of Tradewind; give another --name"
    )


def drop_leftovers(endpoint: Endpoint, objects: list[dict[str, Any]], cluster: Cluster) -> None:
    """Take away what an earlier form of the endpoint had and this one does not."""
    kinds = {manifest["kind"] for manifest in objects}
    removable = [("autoscaling/v2", "HorizontalPodAutoscaler")]
    if endpoint.capabilities.gateway:
        removable.append(("gateway.networking.k8s.io/v1", "HTTPRoute"))
    for api_version, kind in removable:
        if kind not in kinds:
            cluster.delete(api_version, kind, endpoint.name)


def drop_old_packages(endpoint: Endpoint, objects: list[dict[str, Any]], cluster: Cluster) -> None:
    """Take away packages that no replica, and none that the Deployment could go back to, is made of."""
    selector = f"{names.LABEL_ENDPOINT}={endpoint.name}"
    needed = {manifest["metadata"]["name"] for manifest in objects if manifest["kind"] == "ConfigMap"}
    for replicas in cluster.list(APPS, "ReplicaSet", selector):
        for volume in replicas["spec"]["template"]["spec"].get("volumes", ()):
            sources = volume.get("projected", {}).get("sources", ())
            needed |= {source["configMap"]["name"] for source in sources if "configMap" in source}
    for found in cluster.list("v1", "ConfigMap", selector, only_metadata=True):
        if found["metadata"]["name"] not in needed:
            cluster.delete("v1", "ConfigMap", found["metadata"]["name"])


def endpoints(on: str) -> list[Deployed]:
    """All endpoints in the namespace of a context, by name."""
    with Cluster(load_context(on)) as cluster:
        found = cluster.list(APPS, "Deployment", ENDPOINTS)
    return sorted((observed(one, on) for one in found), key=lambda one: one.name)


def observed(found: Object, on: str) -> Deployed:
    """How an endpoint is, by its Deployment."""
    about, status = found["metadata"], found.get("status", {})
    wanted, ready = found["spec"].get("replicas", 1), status.get("readyReplicas", 0)
    updated = status.get("updatedReplicas", 0)
    stuck = next((c for c in status.get("conditions", ()) if is_bad(c)), None)
    current = status.get("observedGeneration") == about["generation"]
    done = current and ready == updated == wanted == status.get("replicas", 0)
    state = "serving" if done else "stuck" if stuck else "updating" if ready else "starting"
    state = "draining" if "deletionTimestamp" in about else state
    return Deployed(
        name=about["name"],
        on=on,
        model=about.get("annotations", {}).get(names.ANNOTATION_MODEL, ""),
        ready=ready,
        wanted=wanted,
        updated=updated,
        state=state,
        reason="" if done or stuck is None else f"{stuck.get('reason', '')}: {stuck.get('message', '')}",
    )


def is_bad(condition: Object) -> bool:
    """Whether a condition of a Deployment says that it does not get on."""
    failing = condition["type"] == "ReplicaFailure" and condition["status"] == "True"
    late = condition["type"] == "Progressing" and condition["status"] == "False"
    return bool(failing or late)


def wait_until_serving(name: str, on: str, least: int) -> Deployed:
    """The endpoint once all its replicas, `least` or more, are ready and of the newest model, or it is stuck.

    Where an autoscaler has their number to itself a Deployment begins with one.
    """
    selector = f"{names.LABEL_ENDPOINT}={name}"
    with Cluster(load_context(on)) as cluster:
        for kind, found in cluster.watch(APPS, "Deployment", selector):
            for one in list_items(found) if kind == "LISTED" else [found]:
                seen = observed({"apiVersion": APPS, "kind": "Deployment"} | one, on)
                if seen.state == "stuck" or (seen.state == "serving" and seen.wanted >= least):
                    return seen
            if kind == "DELETED":
                break
    raise NotFoundError(f"endpoint {name} was taken away while it started")


def undeploy(name: str, on: str) -> None:
    """Take an endpoint away: its replicas drain, and everything that it owns goes with it.

    Raises NotFoundError when there is no such endpoint.
    """
    with Cluster(load_context(on)) as cluster:
        found = cluster.get(APPS, "Deployment", name)
        if found is None or found["metadata"].get("labels", {}).get(names.LABEL_ENDPOINT) != name:
            known = ", ".join(
                sorted(d["metadata"]["name"] for d in cluster.list(APPS, "Deployment", ENDPOINTS))
            )
            raise NotFoundError(f"there is no endpoint {name} on {on}; there are: {known or 'none'}")
        cluster.delete(APPS, "Deployment", name)
