"""What commands about runs do for a run on Ray."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tradewind.cli.attend import attend
from tradewind.cli.output import emit
from tradewind.cli.runs import row
from tradewind.errors import SpecError
from tradewind.launch.ray.place import RayPlace, ray_place_of
from tradewind.launch.ray.status import OVER, follow, refresh, stop
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.cli.flags import Output
    from tradewind.spec import RunSpec
    from tradewind.store import Run, Store


def run_on(spec: RunSpec, on: str, *, detach: bool, dry_run: bool, output: Output) -> int:
    """`tradewind run --on ray`: show the plan, or submit and follow."""
    from tradewind.launch.ray.context import address_of, load_ray_context

    context = load_ray_context(on)
    if dry_run:
        import msgspec

        from tradewind.launch.plan import plan

        worked_out = msgspec.to_builtins(plan(spec, elsewhere=True))
        where = {"on": on, "address": address_of(context), "hosts": spec.hosts, "strategy": context.strategy}
        emit(worked_out | where, output)
        return ExitCode.OK
    from tradewind.launch.ray.submit import submit
    from tradewind.store import open_store

    with open_store() as store:
        return watch(submit(spec, on, store), store, detach=detach, output=output)


def rerun_on(earlier: Run, store: Store, *, detach: bool, output: Output) -> int:
    """`tradewind rerun` of a run that went to Ray."""
    from tradewind.launch.ray.submit import resubmit

    return watch(resubmit(earlier, store), store, detach=detach, output=output)


def watch(run: Run, store: Store, *, detach: bool, output: Output) -> int:
    """Follow a run on Ray to its end."""
    place = where(run)
    said = f"job {place.submission} at {place.address}"

    def print_lines() -> None:
        follow(place, quiet if output == "json" else show)

    return attend(run, store, said, print_lines, refresh, detach=detach, output=output)


def logs_on(run: Run, *, following: bool, rank: int | None, attempt: int | None) -> int:
    """`tradewind logs` of a run on Ray."""
    from tradewind.launch.ray.job_api import JobApi

    if attempt is not None:
        raise SpecError("--attempt: what hosts printed is not told apart by attempt; leave it out")
    emit_line = show if rank is None else of_rank(rank)
    place = where(run)
    if following and run.state not in OVER:
        follow(place, emit_line)
        return ExitCode.OK
    with JobApi(place.address) as api:
        for line in api.logs(place.submission).splitlines():
            emit_line(line)
    return ExitCode.OK


def of_rank(rank: int) -> Callable[[str], None]:
    """Print what is said of the hosts, and of their output the lines of this rank."""

    def select(line: str) -> None:
        if not line.startswith("[host") or f"] [rank{rank}] " in line:
            show(line)

    return select


def show(line: str) -> None:
    """A host's output to stdout; what is said about hosts to stderr."""
    print(line, file=sys.stdout if line.startswith("[host") else sys.stderr, flush=True)


def quiet(line: str) -> None:
    """Nothing: whoever reads JSON reads the end."""


def stop_on(run: Run, store: Store, *, output: Output) -> int:
    """`tradewind stop` of a run on Ray."""
    emit(row(stop(run, store), time.time()), output, ("id", "name", "state", "exit_code"))
    return ExitCode.OK


def where(run: Run) -> RayPlace:
    """Where on Ray the run is."""
    found = ray_place_of(run)
    assert found is not None, "the caller asked for a run on Ray"
    return found
