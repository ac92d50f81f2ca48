"""How a run on Ray is, as its cluster says, and what it printed."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tradewind.errors import ClusterError, TradewindError
from tradewind.launch.ray.job_api import JobApi
from tradewind.launch.ray.place import RayPlace, ray_place_of
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.store import Run, Store

OVER = ("succeeded", "failed", "requeued", "stopped")
POLL_S = 0.5
"""How often a job that runs is asked for: its API has no way to wait."""


def observe(job: dict[str, Any] | None) -> dict[str, Any]:
    """The run's state, times, exit code and reason, given what the cluster says of its job."""
    if job is None:
        return {
            "state": "failed",
            "exit_code": ExitCode.FAILED,
            "reason": "Ray does not know its job any more",
        }
    started_s, ended_s = (ms / 1000 if (ms := job.get(key)) else None for key in ("start_time", "end_time"))
    said = str(job.get("message") or "").strip()
    code = job.get("driver_exit_code")
    state, exit_code = state_of(str(job.get("status")), code)
    reason = said.splitlines()[0] if said and state in ("pending", *OVER) else ""
    return {
        "state": state,
        "started_s": started_s,
        "ended_s": ended_s if state in OVER else None,
        "exit_code": exit_code,
        "reason": reason,
    }


def state_of(status: str, code: int | None) -> tuple[str, int | None]:
    """Ray's status and its driver's exit code in the store's words."""
    match status, code:
        case "PENDING", _:
            return "pending", None
        case "RUNNING", _:
            return "running", None
        case "SUCCEEDED", _:
            return "succeeded", ExitCode.OK
        case "STOPPED", _:
            return "stopped", ExitCode.INTERRUPTED
        case _, ExitCode.INTERRUPTED:
            return "stopped", ExitCode.INTERRUPTED
        case _, ExitCode.REQUEUE:
            return "requeued", ExitCode.REQUEUE
    return "failed", code or ExitCode.FAILED


def refresh(run: "Run", store: "Store") -> "Run":
    """The run as its cluster says it is; raises ClusterError when the cluster cannot be asked."""
    place = ray_place_of(run)
    if place is None or run.state in OVER:
        return run
    with JobApi(place.address) as api:
        return keep(run, api.job(place.submission), store)


def refresh_all(runs: "Sequence[Run]", store: "Store") -> "tuple[list[Run], list[str]]":
    """All runs, those on Ray as their clusters say they are, and what could not be asked."""
    found, problems = [], []
    silent: set[str] = set()
    for run in runs:
        place = ray_place_of(run)
        try:
            found.append(run if place is None or place.address in silent else refresh(run, store))
        except ClusterError as error:
            assert place is not None, "only a run on Ray asks Ray"
            silent.add(place.address)
            problems.append(str(error))
            found.append(run)
    return found, problems


def keep(run: "Run", job: dict[str, Any] | None, store: "Store") -> "Run":
    """Tell the store how a run is, if it does not know yet."""
    run = store.run(run.id)  # Its own agents may have said how it ended while the cluster was asked.
    if run.state in OVER:
        return run
    seen = observe(job)
    reason = seen.pop("reason")
    if seen["state"] in OVER:
        seen["ended_s"] = seen["ended_s"] if seen.get("ended_s") else time.time()
        note_end(run, seen, reason, store)
    return store.update_run(run.id, **seen)


def note_end(run: "Run", seen: dict[str, Any], reason: str, store: "Store") -> None:
    """Leave the reason in the run's attempts, unless its agents kept attempts themselves."""
    from tradewind.store import Attempt

    if not store.attempts(run.id):
        attempt = Attempt(
            run=run.id,
            index=0,
            state=seen["state"],
            started_s=seen.get("started_s") or run.created_s,
            ended_s=seen["ended_s"],
            exit_code=seen["exit_code"],
            reason=reason,
        )
        store.add_attempt(attempt)


def follow(place: RayPlace, emit: Callable[[str], None]) -> None:
    """Emit what the run's hosts print, as it comes, until the job is over."""
    printed = 0
    with JobApi(place.address) as api:
        while True:
            over = observe(api.job(place.submission))["state"] in OVER
            text = api.logs(place.submission)
            whole = len(text) if over else text.rfind("\n") + 1
            for line in text[printed:whole].splitlines():
                emit(line)
            printed = max(printed, whole)
            if over:
                return
            time.sleep(POLL_S)


def stop(run: "Run", store: "Store") -> "Run":
    """Ask a run to end and wait until it has; its workers commit in the time they have.

    Raises TradewindError when the run is over already.
    """
    place = ray_place_of(run)
    assert place is not None, "the caller asked for a run on Ray"
    run = refresh(run, store)
    if run.state in OVER:
        raise TradewindError(f"run {run.id} does not run on {place.on}; it is {run.state}")
    with JobApi(place.address) as api:
        api.stop(place.submission)
    follow(place, lambda line: None)
    return refresh(run, store)
