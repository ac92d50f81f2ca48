"""A run on its way to a cluster: its code is snapshotted, it is made known to the store, then the cluster is asked.

A run is known before it is anywhere, so that none is anywhere that nobody knows of.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tradewind.errors import TradewindError
from tradewind.launch.local import as_stored
from tradewind.launch.place import FIELD, AnyPlace
from tradewind.launch.snapshot import snapshot_of
from tradewind.names import ExitCode
from tradewind.spec import RunSpec

if TYPE_CHECKING:
    from tradewind.store import Blobs, Run, Store


class Submission(NamedTuple):
    """What is to run, and where."""

    name: str
    stored: Mapping[str, Any]
    """The spec as the store keeps it, but for the place."""
    digest: str
    """Of the code's snapshot, which is in `blobs`."""
    on: str
    blobs: "Blobs"

    def run(self, run_id: str, created_s: float, place: msgspec.Struct) -> "Run":
        """As the store knows it."""
        from tradewind.store import Run

        spec = {**self.stored, FIELD: msgspec.to_builtins(place)}
        return Run(id=run_id, name=self.name, created_s=created_s, spec=spec, snapshot=self.digest)


def first(spec: RunSpec, on: str, blobs: "Blobs | None" = None, cwd: Path | None = None) -> Submission:
    """A new run, of the code as it is now; raises SpecError for what is wrong in the spec."""
    worked_out, digest, blobs = snapshot_of(spec, blobs, cwd, elsewhere=True)
    return Submission(worked_out.name, as_stored(spec, worked_out), digest, on, blobs)


def again(earlier: "Run", place: AnyPlace | None, blobs: "Blobs | None" = None) -> Submission:
    """The same bytes with the same arguments, at the place of the earlier run.

    Raises TradewindError when that run has no snapshot, or no place on the kind of cluster that was looked for.
    """
    from tradewind.store import open_blobs

    if place is None or not earlier.snapshot:
        raise TradewindError(f"run {earlier.id} has no code snapshot on a cluster, so it cannot be run again")
    stored = {key: value for key, value in earlier.spec.items() if key != FIELD}
    return Submission(earlier.name, stored, earlier.snapshot, place.on, blobs or open_blobs())


@contextlib.contextmanager
def known(run: "Run", store: "Store") -> "Iterator[Run]":
    """Make the run known, then ask the cluster in the body; when it refuses, the run is known as failed."""
    run = store.add_run(run)
    try:
        yield run
    except BaseException:  # also on Ctrl-C: nothing else would ever end the run
        store.update_run(run.id, state="failed", ended_s=time.time(), exit_code=ExitCode.FAILED)
        raise
