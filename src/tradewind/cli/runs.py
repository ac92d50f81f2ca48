"""Commands about runs: run, rerun, ps, show, logs, stop."""

from __future__ import annotations

import os
import sys
import time

from tradewind.cli.output import emit
from tradewind.errors import SpecError, TradewindError
from tradewind.names import ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tradewind.cli.flags import FollowFlag, Output, OutputFlag, Passed
    from tradewind.launch.plan import Asked
    from tradewind.spec import RunSpec
    from tradewind.store import Run, Store


def run(
    script: str,
    *args: Passed,
    workers: int | None = None,
    name: str | None = None,
    max_restarts: int | None = None,
    on: str | None = None,
    hosts: int | None = None,
    gpus: int | None = None,
    image: str | None = None,
    detach: bool = False,
    dry_run: bool = False,
    output: OutputFlag = "table",
) -> int:
    """Run a torchrun-compatible script on N workers, here or on a cluster, and keep it alive.

    Parameters
    ----------
    script
        A Python script, or a YAML file that holds a RunSpec.
    args
        Arguments of the script, after `--`.
    workers
        Worker processes on all hosts; one for each GPU or host unless the YAML file says otherwise.
    name
        Name of the run; the script's name by default.
    max_restarts
        How often the group is started again after a failure; 3 by default.
    on
        `k8s`, or `k8s:NAME` for the context in contexts/NAME.yaml; `ray`, `ray:ADDRESS` or `ray:NAME`; this
        machine by default.
    hosts
        Machines or pods; 1 by default. On this machine all workers run here.
    gpus
        GPUs of each host.
    image
        Container image, instead of the context's.
    detach
        Leave the run in the background and print its id.
    dry_run
        Print the plan and write nothing.
    output
        `table` for people, `json` for programs.
    """
    if dry_run and on is None and (hosts, gpus, image) == (None, None, None):
        plain = asked(script, args, workers=workers, name=name, max_restarts=max_restarts)
        if plain is not None:
            return show_plan(plain, output)
    spec = read_spec(
        script,
        args,
        workers=workers,
        name=name,
        max_restarts=max_restarts,
        hosts=hosts,
        gpus=gpus,
        image=image,
    )
    if on is not None:
        from tradewind.cli.cluster import run_on

        return run_on(spec, on, detach=detach, dry_run=dry_run, output=output)
    if dry_run:
        return show_plan(spec, output)
    if spec.hosts > 1:
        here = f"hosts: all {spec.workers} workers of {spec.hosts} hosts run on this machine"
        print(f"tradewind: {here}; --on k8s spreads them", file=sys.stderr)
    from tradewind.launch.local import submit
    from tradewind.store import open_store

    with open_store() as store:
        return launch(submit(spec, store), store, detach=detach, output=output)


def show_plan(spec: RunSpec | Asked, output: Output) -> int:
    """Print what would run here."""
    from tradewind.launch.plan import plan

    emit(plan(spec), output)
    return ExitCode.OK


def rerun(run: str, *, detach: bool = False, output: OutputFlag = "table") -> int:
    """Run the very bytes of an earlier run again, with the same arguments, as a new run.

    Parameters
    ----------
    run
        Id, unique start of an id, name, or `last`.
    """
    from tradewind.launch.local import resubmit
    from tradewind.store import open_store

    with open_store() as store:
        earlier = store.run(run)
        if on_cluster(earlier):
            from tradewind.cli.cluster import rerun_on

            return rerun_on(earlier, store, detach=detach, output=output)
        return launch(resubmit(earlier, store), store, detach=detach, output=output)


def ps(*, all: bool = False, limit: int = 20, output: OutputFlag = "table") -> int:
    """List runs, newest first.

    Parameters
    ----------
    all
        Every run, whatever `limit` says.
    """
    from tradewind.cli.brief import brief

    with brief():
        return list_runs(1_000_000 if all else limit, output)


def list_runs(limit: int, output: Output) -> int:
    """Print the newest runs as they are now."""
    from tradewind.store import open_store

    with open_store() as store:
        runs = up_to_date(store.runs(limit), store)
    rows = [row(r, time.time()) for r in runs]
    emit(rows, output, ("id", "name", "on", "state", "workers", "age_s", "wall_s", "exit_code"))
    return ExitCode.OK


def row(run: Run, now_s: float) -> dict[str, Any]:
    """One line of `ps`."""
    wall_s = (run.ended_s or now_s) - run.started_s if run.started_s else None
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state,
        "workers": run.spec.get("workers", 1),
        "on": run.spec.get("place", {}).get("on", "here"),
        "age_s": round(now_s - run.created_s, 1),
        "wall_s": None if wall_s is None else round(wall_s, 1),
        "exit_code": run.exit_code,
        "snapshot": run.snapshot,
        "dir": run.dir,
    }


def print_start(run: Run, output: Output) -> None:
    """What `--detach` leaves a script with: the run's id, as JSON its row."""
    if output == "json":
        emit(row(run, time.time()), output)
    else:
        print(run.id)


def show(run: str, *, ledger: bool = False, output: OutputFlag = "table") -> int:
    """Show one run: attempts, the first failure, recovery, last metrics.

    Parameters
    ----------
    run
        Id, unique start of an id, name, or `last`.
    ledger
        Where the wall time went, by bucket.
    """
    from tradewind.cli.summary import print_summary, summarize
    from tradewind.store import open_store

    with open_store() as store:
        run_now = up_to_date([store.run(run)], store)[0]
        if on_cluster(run_now):
            from tradewind.cli.cluster import remember

            remember(run_now, store)
        found = summarize(run_now, store)
    if output == "json":
        emit(found, output)
    else:
        print_summary(found, ledger=ledger)
    return ExitCode.OK


def logs(
    run: str,
    *,
    follow: FollowFlag = False,
    rank: int | None = None,
    attempt: int | None = None,
) -> int:
    """Print a run's logs, the first failure first.

    Parameters
    ----------
    run
        Id, unique start of an id, name, or `last`.
    follow
        Keep printing until the run ends.
    rank
        Only this rank.
    attempt
        Only this attempt; the last one by default.
    """
    from tradewind.cli.follow import follow_logs, print_logs
    from tradewind.store import open_store

    with open_store() as store:
        found = up_to_date([store.run(run)], store)[0]
        if on_cluster(found):
            from tradewind.cli.cluster import logs_on

            return logs_on(found, store, follow=follow, rank=rank, attempt=attempt)
        if follow and found.state in ("pending", "running"):
            follow_logs(found, rank, attempt)
        else:
            print_logs(found, store, rank, attempt)
    return ExitCode.OK


def stop(run: str, *, now: bool = False, output: OutputFlag = "table") -> int:
    """Stop a run: its workers checkpoint and end. Returns when they have.

    Parameters
    ----------
    run
        Id, unique start of an id, name, or `last`.
    now
        Kill the workers at once, without a checkpoint.
    """
    from pathlib import Path

    from tradewind.agent.lock import is_held
    from tradewind.launch.local import reconcile
    from tradewind.store import open_store

    with open_store() as store:
        found = store.run(run)
        if on_cluster(found):
            from tradewind.cli.cluster import stop_on

            return stop_on(found, store, now=now, output=output)
        if not is_held(Path(found.dir)) or found.pid is None:
            found = reconcile(found, store)
            raise TradewindError(f"run {found.id} does not run here; it is {found.state}")
        interrupt(found.pid, times=2 if now else 1)
        emit(row(store.run(found.id), time.time()), output, ("id", "name", "state", "exit_code"))
    return ExitCode.OK


def resize(run: str, *, workers: int) -> int:
    """Let a run go on with another number of workers, from its last committed step.

    Workers that stay keep their process. The script must be able to: its data is `train.Batches`, or
    its state is alike on all workers.

    Parameters
    ----------
    run
        Id, unique start of an id, name, or `last`.
    workers
        How many workers it shall have from now on.
    """
    from pathlib import Path

    from tradewind.agent import job_of
    from tradewind.agent.lock import is_held
    from tradewind.store import open_store

    if workers < 1:
        raise SpecError(f"--workers is {workers}; it must be at least 1")
    with open_store() as store:
        found = store.run(run)
    if not is_held(Path(found.dir)):
        raise TradewindError(f"run {found.id} does not run here; it is {found.state}")
    job_of(found).want(workers)
    return ExitCode.OK


def on_cluster(run: Run) -> bool:
    """Whether a run went elsewhere than to this machine."""
    return "place" in run.spec


def up_to_date(runs: list[Run], store: Store) -> list[Run]:
    """Runs as they are now; those on a cluster that cannot be asked stay as they were last seen."""
    from tradewind.launch.local import reconcile

    runs = [run if on_cluster(run) else reconcile(run, store) for run in runs]
    if not any(on_cluster(run) for run in runs):
        return runs
    from tradewind.launch.kubernetes.status import refresh_all
    from tradewind.launch.ray.status import refresh_all as refresh_ray

    runs, problems = refresh_all(runs, store)
    runs, more = refresh_ray(runs, store)
    problems += more
    for problem in problems:
        print(f"tradewind: as last seen: {problem}", file=sys.stderr)
    return runs


def interrupt(pid: int, times: int) -> None:
    """Ask an agent once or twice to end, and wait until it has."""
    import select
    import signal

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for signum in (signal.SIGINT, signal.SIGTERM)[:times]:  # Two of one kind could arrive as one.
            signal.pidfd_send_signal(pidfd, signum)
        select.select([pidfd], [], [])
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def read_spec(
    script: str,
    args: tuple[str, ...],
    *,
    hosts: int | None = None,
    gpus: int | None = None,
    image: str | None = None,
    **flags: Any,
) -> RunSpec:
    """The spec that the command line asks for: flags over the YAML file, if one was given."""
    import msgspec

    from tradewind.spec import RunSpec, load_yaml

    is_yaml = script.endswith((".yaml", ".yml"))
    base = load_yaml(script, RunSpec) if is_yaml else RunSpec(script=script)
    given = {key: value for key, value in flags.items() if value is not None}
    if args:
        given["args"] = tuple(args)
    if image is not None:
        given["placement"] = msgspec.structs.replace(base.placement, image=image)
    given |= sized(base, hosts, gpus, given.get("workers"))
    return msgspec.structs.replace(base, **given)


def asked(script: str, args: tuple[str, ...], **flags: Any) -> Asked | None:
    """The little that a plan needs of a script's spec, which takes longer to check than to plan; None if that is not all."""
    from tradewind.launch.plan import Asked

    found = Asked(
        script=script, args=args, **{key: value for key, value in flags.items() if value is not None}
    )
    right = (
        script and not script.endswith((".yaml", ".yml")) and found.workers >= 1 and found.max_restarts >= 0
    )
    return found if right else None


def sized(base: RunSpec, hosts: int | None, gpus: int | None, workers: int | None) -> dict[str, Any]:
    """Hosts, workers and GPUs of each worker, given the hosts, the GPUs of each host, and perhaps the workers."""
    import msgspec

    if hosts is None and gpus is None:
        return {}
    if (hosts is not None and hosts < 1) or (gpus is not None and gpus < 0):
        raise SpecError(
            f"--hosts {hosts} --gpus {gpus}: ask for at least one host, and not for fewer than 0 GPUs"
        )
    machines = hosts or base.hosts
    if gpus is None:
        spread = base.workers if base.workers > 1 else machines
        return {"hosts": machines, "workers": workers or spread}
    workers = workers or machines * max(gpus, 1)
    if machines * gpus % workers:
        raise SpecError(
            f"--gpus {gpus} --hosts {machines} --workers {workers}: {machines * gpus} GPUs cannot be shared evenly"
        )
    each = machines * gpus // workers
    return {
        "hosts": machines,
        "workers": workers,
        "resources": msgspec.structs.replace(base.resources, gpus=each),
    }


def launch(run: Run, store: Store, *, detach: bool, output: Output) -> int:
    """Run it here, or hand it to an agent in the background; the exit code says how it ended."""
    from tradewind.launch.local import start_detached

    if detach:
        start_detached(run, store)
        print_start(store.run(run.id), output)
        return ExitCode.OK
    from pathlib import Path

    from tradewind.agent import job_of, supervise
    from tradewind.agent.lock import held
    from tradewind.agent.watch import held_back
    from tradewind.cli.live import Watcher

    job = job_of(run)
    with held_back(), held(Path(run.dir)), Watcher(job, run, quiet=output == "json") as watcher:
        store.update_run(run.id, pid=os.getpid())
        outcome = supervise(job, store, watcher)
    if output == "json":
        emit(row(store.run(run.id), time.time()) | {"reason": outcome.reason}, output)
    else:
        watcher.conclude(outcome)
    return outcome.exit_code
