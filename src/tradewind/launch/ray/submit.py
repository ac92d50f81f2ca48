"""Runs on a Ray cluster: code and description packed, recorded, and handed to the cluster's job API."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind import names
from tradewind.errors import TradewindError
from tradewind.launch.local import as_stored
from tradewind.launch.plan import plan
from tradewind.launch.ray.context import RayContext, address_of, load_ray_context
from tradewind.launch.ray.job_api import JobApi
from tradewind.launch.ray.package import RUN, package
from tradewind.launch.ray.place import FIELD, RayPlace, ray_place_of
from tradewind.launch.snapshot import snapshot
from tradewind.spec import RunSpec

if TYPE_CHECKING:
    from tradewind.store import Blobs, Run, Store

WIND_UP_S = 20
"""What the driver and the agents may take beyond the workers' grace."""


def submit(
    spec: RunSpec, on: str, store: "Store", blobs: "Blobs | None" = None, cwd: Path | None = None
) -> "Run":
    """Snapshot the code of `spec` and submit it to the Ray cluster that `on` names.

    Raises SpecError for what is wrong in the spec or the context, and ClusterError when the cluster refuses.
    """
    from tradewind.store import home, open_blobs

    context = load_ray_context(on)
    worked_out = plan(spec, cwd, elsewhere=True)
    blobs = blobs or open_blobs()
    digest = snapshot(Path(worked_out.root), blobs, home() / "cache" / "snapshot")
    return send(worked_out.name, as_stored(spec, worked_out), digest, on, context, store, blobs)


def resubmit(earlier: "Run", store: "Store", blobs: "Blobs | None" = None) -> "Run":
    """A new run of the same bytes with the same arguments, where the earlier one was.

    Raises TradewindError when the earlier run has no snapshot.
    """
    from tradewind.store import open_blobs

    place = ray_place_of(earlier)
    if place is None or not earlier.snapshot:
        raise TradewindError(f"run {earlier.id} has no code snapshot on Ray, so it cannot be run again")
    stored = {key: value for key, value in earlier.spec.items() if key != FIELD}
    context = load_ray_context(place.on)
    return send(earlier.name, stored, earlier.snapshot, place.on, context, store, blobs or open_blobs())


def send(
    name: str,
    stored: Mapping[str, Any],
    digest: str,
    on: str,
    context: RayContext,
    store: "Store",
    blobs: "Blobs",
) -> "Run":
    """Make the run known, then submit it; when that is refused it is known as failed."""
    from tradewind.store import Run, new_id

    run_id, created_s = new_id(), time.time()
    about = describe(run_id, name, stored, digest, context, created_s)
    file, data = package(about, digest, blobs)
    place = RayPlace(on=on, address=address_of(context), submission=f"tradewind-{run_id}")
    spec = {**stored, FIELD: msgspec.to_builtins(place)}
    with JobApi(place.address) as api:
        uri = api.upload(file, data)
        run = store.add_run(Run(id=run_id, name=name, created_s=created_s, spec=spec, snapshot=digest))
        try:
            api.submit(job(run_id, name, place.submission, uri, context))
        except BaseException:
            store.update_run(run.id, state="failed", ended_s=time.time(), exit_code=names.ExitCode.FAILED)
            raise
    return run


def describe(
    run_id: str, name: str, stored: Mapping[str, Any], digest: str, context: RayContext, created_s: float
) -> dict[str, Any]:
    """The run as its driver and agents read it, without the folder of the machine it was submitted from."""
    spec = {key: value for key, value in stored.items() if key != "root"}
    return {
        "id": run_id,
        "name": name,
        "created_s": created_s,
        "snapshot": digest,
        "spec": spec | {"grace_s": context.grace_s},
        "ray": msgspec.to_builtins(context),
    }


def job(run_id: str, name: str, submission: str, uri: str, context: RayContext) -> dict[str, Any]:
    """The body of a submit: the driver, in a folder that is the package."""
    # -P: a `queue.py` in the package must not take the place of Python's own.
    return {
        "entrypoint": f"{context.python} -P -u -m tradewind.launch.ray {RUN}",
        "submission_id": submission,
        "metadata": {names.LABEL_RUN: run_id, names.LABEL_NAME: name},
        "runtime_env": {
            "working_dir": uri,
            "env_vars": {
                **context.env,
                "RAY_JOB_STOP_WAIT_TIME_S": str(context.grace_s + WIND_UP_S),
                "PYTHONUNBUFFERED": "1",
            },
        },
    }
