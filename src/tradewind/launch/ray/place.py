"""What the store remembers of a run on Ray."""

from typing import TYPE_CHECKING

import msgspec

from tradewind.launch.place import read_place
from tradewind.launch.ray.context import KIND

if TYPE_CHECKING:
    from tradewind.store import Run


class RayPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a Ray cluster."""

    kind: str = KIND
    on: str
    """As it was asked for: `ray`, `ray:ADDRESS` or `ray:NAME`."""
    address: str
    """The job API's; the same name may mean another cluster one day."""
    submission: str


def ray_place_of(run: "Run") -> RayPlace | None:
    """Which job of which cluster a run is; None when it is not on Ray."""
    return read_place(run, KIND, RayPlace)
