"""Runs on a cluster: code and manifests worked out, tried, recorded, and made as a whole or not at all."""

import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tradewind import names
from tradewind.errors import ClusterError
from tradewind.launch.kubernetes.cluster import Cluster, Object, Refused
from tradewind.launch.kubernetes.code import Base, Code, TooLarge, pack
from tradewind.launch.kubernetes.context import Context, load_context
from tradewind.launch.kubernetes.manifests import CODE_FORMAT, Manifest, job, manifests, token_secret
from tradewind.launch.kubernetes.place import Place, place_of
from tradewind.launch.kubernetes.request import Request, for_pods, make_request
from tradewind.launch.send import Submission, again, first, known
from tradewind.launch.tree import read_tree
from tradewind.spec import RunSpec, from_stored

if TYPE_CHECKING:
    from tradewind.store import Blobs, Run, Store

_RUNS_LOOKED_AT = 200
_PARALLEL = 8


def submit(
    spec: RunSpec, on: str, store: "Store", blobs: "Blobs | None" = None, cwd: Path | None = None
) -> "Run":
    """Snapshot the code of `spec` and make its Job on the cluster that `on` names.

    Raises SpecError for what is wrong in the spec or the context, and ClusterError when the cluster
    refuses; nothing stays on the cluster then.
    """
    context = load_context(on)
    return send(first(spec, on, blobs, cwd), context, store)


def resubmit(earlier: "Run", store: "Store", blobs: "Blobs | None" = None) -> "Run":
    """A new run of the same bytes with the same arguments, where the earlier one was.

    Raises TradewindError when the earlier run has no snapshot.
    """
    asked = again(earlier, place_of(earlier), blobs)
    return send(asked, load_context(asked.on), store)


def send(asked: Submission, context: Context, store: "Store") -> "Run":
    """Work out the run's objects and have them tried, then make the run known, then make them."""
    from tradewind.store import new_id

    created_s, blobs = time.time(), asked.blobs
    with Cluster(context) as cluster:
        parts = existing_parts(cluster)
        base = find_base(str(asked.stored["root"]), cluster, parts, store, blobs)
        request = make_request(
            run=new_id(),
            name=asked.name,
            spec=from_stored(RunSpec, asked.stored),
            stored=for_pods(asked.stored),
            code=travel(asked.digest, blobs, context, base),
            context=context,
            capabilities=cluster.capabilities(),
            checkpoint_s=checkpoint_s(asked.name, store),
            created_s=created_s,
        )
        try_out(request, cluster)
        place = place_for(request, asked.on, cluster)
        with known(asked.run(request.run, created_s, place), store) as run:
            create(request, cluster, parts)
    return run


def place_for(request: Request, on: str, cluster: Cluster) -> Place:
    """What the store remembers of where the run went."""
    return Place(
        on=on,
        cluster=cluster.url,
        namespace=cluster.namespace,
        job=request.object_name,
        gang=request.gang,
        image=request.image,
        layers=request.code.layers,
        max_bytes=request.code.max_bytes,
    )


def travel(digest: str, blobs: "Blobs", context: Context, base: Base | None) -> Code:
    """The code as ConfigMaps, else through the context's blob store."""
    from tradewind.store import open_blobs

    try:
        return pack(digest, blobs, base)
    except TooLarge:
        if context.blobs is None:
            raise
    upload(digest, blobs, open_blobs(context.blobs))
    return Code(digest=digest)


def upload(digest: str, here: "Blobs", there: "Blobs") -> int:
    """Put into `there` what it lacks of a snapshot; return how many blobs that were."""
    if here.url == there.url:
        return 0
    tree = read_tree(digest, here)
    files = {item.digest for item in tree.entries if item.link is None}
    absent = there.lacking(files.union(tree.parts))
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for some in (absent.difference(tree.parts), absent.intersection(tree.parts)):
            for _ in pool.map(lambda blob: there.put(here.get(blob)), some):
                pass
    there.put(here.get(digest))  # The manifest last: whoever finds it finds all that it lists.
    return len(absent)


def existing_parts(cluster: Cluster) -> dict[str, str]:
    """The parts of code that the namespace has, with their uids."""
    selector = f"{names.LABEL_CODE}={CODE_FORMAT}"
    found = cluster.list("v1", "ConfigMap", selector, only_metadata=True)
    live = [item["metadata"] for item in found if "deletionTimestamp" not in item["metadata"]]
    return {metadata["name"]: metadata["uid"] for metadata in live}


def find_base(
    root: str, cluster: Cluster, parts: Mapping[str, str], store: "Store", blobs: "Blobs"
) -> Base | None:
    """The newest snapshot of the same project whose parts are all still there."""
    for run in store.runs(_RUNS_LOOKED_AT):
        place = place_of(run)
        if place is None or not place.layers or not run.snapshot or run.spec.get("root") != root:
            continue
        here = (place.cluster, place.namespace) == (cluster.url, cluster.namespace)
        if (
            here
            and all(name in parts for layer in place.layers for name in layer)
            and blobs.has(run.snapshot)
        ):
            return Base(digest=run.snapshot, layers=place.layers, max_bytes=place.max_bytes)
    return None


def checkpoint_s(name: str, store: "Store") -> float | None:
    """The slowest checkpoint of the newest run of this name that wrote one, from its start until it was on disk.

    Training does not wait for most of that; a host that is to go does.
    """
    for run in store.runs(_RUNS_LOOKED_AT):
        if run.name == name and (events := store.events(run.id, kind="checkpoint")):
            return max(float(event.data.get("seconds", 0.0)) for event in events)
    return None


def try_out(request: Request, cluster: Cluster) -> None:
    """Let the API server check everything but the parts of code, and make nothing."""
    for manifest in manifests(request):
        if manifest["metadata"]["name"] not in request.code.parts:
            cluster.apply(manifest, dry_run=True)


def create(request: Request, cluster: Cluster, parts: Mapping[str, str]) -> Object:
    """Make the run's objects; its Job is made first and runs last, and owns all the others.

    Doing it again changes nothing. When anything is refused the Job is deleted, and what it owns with it.
    """
    found = cluster.get("batch/v1", "Job", request.object_name)
    if found is not None and not found["spec"].get("suspend"):
        return found
    wanted = job(request)
    made = cluster.apply(asleep(wanted))
    try:
        owner = owner_reference(made)
        cluster.apply(owned(token_secret(request, secrets.token_hex(32)), owner))
        for manifest in manifests(request)[:-1]:
            name = manifest["metadata"]["name"]
            if name not in parts:
                manager = manager_of(request) if name in request.code.parts else names.FIELD_MANAGER
                cluster.apply(owned(manifest, owner), manager=manager)
        for name in request.code.names:
            if name in parts:
                adopt(name, parts[name], owner, request, cluster)
        return cluster.apply(wanted)
    except BaseException:  # also on Ctrl-C: nothing would ever wake the Job
        cluster.delete("batch/v1", "Job", request.object_name)
        raise


def asleep(wanted: Manifest) -> Manifest:
    """The Job as it is until all that its pods need is there; no queue hears of it before that."""
    metadata = wanted["metadata"]
    labels = {k: v for k, v in metadata["labels"].items() if not k.startswith("kueue.x-k8s.io/")}
    return wanted | {"metadata": metadata | {"labels": labels}, "spec": wanted["spec"] | {"suspend": True}}


def owner_reference(made: Object) -> Object:
    """The Job as the owner of what goes when it goes."""
    metadata = made["metadata"]
    return {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}


def owned(manifest: Manifest, owner: Object) -> Manifest:
    """The manifest with its owner."""
    return manifest | {"metadata": manifest["metadata"] | {"ownerReferences": [owner]}}


def manager_of(request: Request) -> str:
    """Who adds this run to a part's owners; a manager of its own, so that no run takes another one out."""
    return f"{names.FIELD_MANAGER}-{request.run}"


def adopt(name: str, uid: str, owner: Object, request: Request, cluster: Cluster) -> None:
    """Make the run one more owner of a part that is there.

    With its uid, a part that was deleted meanwhile is not made again empty. Raises ClusterError then.
    """
    metadata = {"name": name, "uid": uid, "ownerReferences": [owner]}
    try:
        cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, manager=manager_of(request)
        )
    except Refused as error:
        if error.status not in (404, 409):
            raise
        raise ClusterError(
            f"the last run that used the ConfigMap {name} was deleted just now, and the code in it with it; submit again"
        ) from error
