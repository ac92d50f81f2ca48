"""What happened: runs, attempts, events, metrics, model versions, aliases, and blobs."""

from tradewind.store.base import Store
from tradewind.store.blobs import Blobs, LocalBlobs, ObjectBlobs, open_blobs
from tradewind.store.open import home, open_store
from tradewind.store.records import Alias, Attempt, Event, Metric, ModelVersion, Run, RunState, new_id

__all__ = [
    "Alias",
    "Attempt",
    "Blobs",
    "Event",
    "LocalBlobs",
    "Metric",
    "ModelVersion",
    "ObjectBlobs",
    "Run",
    "RunState",
    "Store",
    "home",
    "new_id",
    "open_blobs",
    "open_store",
]
