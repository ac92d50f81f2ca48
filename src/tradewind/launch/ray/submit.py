"""Runs on a Ray cluster: code and description packed, recorded, and handed to the cluster's job API."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tradewind import names
from tradewind.launch.ray.context import RayContext, address_of, load_ray_context
from tradewind.launch.ray.job_api import JobApi
from tradewind.launch.ray.package import RUN, package
from tradewind.launch.ray.place import RayPlace, ray_place_of
from tradewind.launch.send import Submission, again, first, known
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
    context = load_ray_context(on)
    return send(first(spec, on, blobs, cwd), context, store)


def resubmit(earlier: "Run", store: "Store", blobs: "Blobs | None" = None) -> "Run":
    """A new run of the same bytes with the same arguments, where the earlier one was.

    Raises TradewindError when the earlier run has no snapshot.
    """
    asked = again(earlier, ray_place_of(earlier), blobs)
    return send(asked, load_ray_context(asked.on), store)


def send(asked: Submission, context: RayContext, store: "Store") -> "Run":
    """Have the cluster keep the run's package, then make the run known, then start its job."""
    from tradewind.store import new_id

    run_id, created_s = new_id(), time.time()
    file, data = package(describe(run_id, asked, context, created_s), asked.digest, asked.blobs)
    place = RayPlace(on=asked.on, address=address_of(context), submission=f"tradewind-{run_id}")
    with JobApi(place.address) as api:
        uri = api.upload(file, data)
        with known(asked.run(run_id, created_s, place), store) as run:
            api.submit(job(run_id, asked.name, place.submission, uri, context))
    return run


def describe(run_id: str, asked: Submission, context: RayContext, created_s: float) -> dict[str, Any]:
    """The run as its driver and agents read it, without the folder of the machine it was submitted from."""
    spec = {key: value for key, value in asked.stored.items() if key != "root"}
    return {
        "id": run_id,
        "name": asked.name,
        "created_s": created_s,
        "snapshot": asked.digest,
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
