"""Where a run went: what the store remembers of it, and the way back to its cluster."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from tradewind.errors import StoreError
from tradewind.launch.kubernetes.cluster import Cluster
from tradewind.launch.kubernetes.code import Layers
from tradewind.launch.kubernetes.context import KIND, load_context
from tradewind.launch.place import read_place

if TYPE_CHECKING:
    from tradewind.store import Run


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The objects of a run on a cluster."""

    kind: str = KIND
    on: str
    """As it was asked for: `k8s`, or `k8s:NAME`."""
    cluster: str
    """The API server's address; the same context may mean another cluster one day."""
    namespace: str
    job: str
    gang: str
    image: str
    layers: Layers = ()
    max_bytes: int = 0


def place_of(run: "Run") -> Place | None:
    """Where on a cluster a run is; None when it is on this machine."""
    return read_place(run, KIND, Place)


@contextlib.contextmanager
def cluster_of(place: Place) -> Iterator[Cluster]:
    """The cluster that a run went to, in its namespace.

    Raises StoreError when its context has come to mean another cluster.
    """
    context = msgspec.structs.replace(load_context(place.on), namespace=place.namespace)
    with Cluster(context) as cluster:
        if cluster.url != place.cluster:
            raise StoreError(
                f"--on {place.on} is now {cluster.url}, and the run went to {place.cluster}; "
                "switch the kubeconfig's context back, or name it in `context` of the context file"
            )
        yield cluster
