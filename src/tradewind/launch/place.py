"""Where a run went, whatever the kind of cluster: a field of its stored spec."""

from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from tradewind.errors import StoreError

if TYPE_CHECKING:
    from tradewind.store import Run

FIELD = "place"
"""Under this name it stands in a stored run's spec."""
P = TypeVar("P", bound=msgspec.Struct)


class AnyPlace(Protocol):
    """What every place says."""

    @property
    def on(self) -> str:
        """As it was asked for: `k8s`, `ray:NAME`, ..."""


def read_place(run: "Run", kind: str, place: type[P]) -> P | None:
    """The run's place on this kind of cluster; None when it is elsewhere.

    Raises StoreError when what the store says of it cannot be read.
    """
    found = run.spec.get(FIELD)
    if not isinstance(found, dict) or found.get("kind") != kind:
        return None
    try:
        return msgspec.convert(found, place)
    except msgspec.ValidationError as error:
        raise StoreError(f"run {run.id}: what the store says of its place cannot be read: {error}") from None
