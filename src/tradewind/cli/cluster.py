"""What commands about runs do for a run on a cluster, and `render`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tradewind.cli.attend import attend
from tradewind.cli.output import emit
from tradewind.cli.runs import read_spec, row
from tradewind.errors import SpecError, TradewindError
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tradewind.cli.flags import Output, Passed, TargetFlag
    from tradewind.launch.kubernetes.logs import Line
    from tradewind.spec import RunSpec
    from tradewind.store import Run, Store


def render(
    script: str,
    *args: Passed,
    target: TargetFlag = "k8s",
    on: str = "k8s",
    workers: int | None = None,
    name: str | None = None,
    max_restarts: int | None = None,
    hosts: int | None = None,
    gpus: int | None = None,
    image: str | None = None,
) -> int:
    """Print the manifests of a run or an endpoint as YAML, code included, without asking a cluster.

    Parameters
    ----------
    script
        A Python script, or a YAML file that holds a RunSpec, or a DeploymentSpec (it has a `model`).
    args
        Arguments of the script, after `--`.
    target
        `k8s` (a Job), `jobset`, `trainjob`, `rayjob`, or `skypilot` (a task).
    on
        `k8s`, or `k8s:NAME` for the context in contexts/NAME.yaml.
    """
    from tradewind.launch.kubernetes.preview import rendered, to_yaml

    if is_endpoint(script):
        from tradewind.launch.kubernetes.deploy import rendered_endpoint
        from tradewind.spec import DeploymentSpec, load_yaml
        from tradewind.store import open_store

        with open_store() as store:
            print(to_yaml(rendered_endpoint(load_yaml(Path(script), DeploymentSpec), on, store)), end="")
        return ExitCode.OK
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
    if target == "skypilot":
        from tradewind.launch import skypilot

        print(to_yaml([skypilot.rendered(spec, "sky" if on == "k8s" else on)]), end="")
        return ExitCode.OK
    print(to_yaml(rendered(spec, target, on)), end="")
    return ExitCode.OK


def is_endpoint(script: str) -> bool:
    """Whether a file says which model to serve, rather than what to run."""
    if not script.endswith((".yaml", ".yml")):
        return False
    import yaml

    try:
        found = yaml.safe_load(Path(script).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False  # Whoever reads it as a RunSpec says what is wrong with it.
    return isinstance(found, dict) and "model" in found


def run_on(spec: RunSpec, on: str, *, detach: bool, dry_run: bool, output: Output) -> int:
    """`tradewind run --on ...`: show the plan, or submit and follow."""
    if on.partition(":")[0] == "ray":
        from tradewind.cli import ray

        return ray.run_on(spec, on, detach=detach, dry_run=dry_run, output=output)
    if on.partition(":")[0] == "sky":
        from tradewind.launch import skypilot

        task = skypilot.rendered(spec, on)
        if dry_run:
            emit(task, output)
            return ExitCode.OK
        return skypilot.launch(task)
    if dry_run:
        from tradewind.cli.plan import dry_run_on

        return dry_run_on(spec, on, output)
    from tradewind.launch.kubernetes.submit import submit
    from tradewind.store import open_store

    with open_store() as store:
        return watch(submit(spec, on, store), store, detach=detach, output=output)


def rerun_on(earlier: Run, store: Store, *, detach: bool, output: Output) -> int:
    """`tradewind rerun` of a run that went to a cluster."""
    if kind_of(earlier) == "ray":
        from tradewind.cli import ray

        return ray.rerun_on(earlier, store, detach=detach, output=output)
    from tradewind.launch.kubernetes.submit import resubmit

    return watch(resubmit(earlier, store), store, detach=detach, output=output)


def kind_of(run: Run) -> str:
    """The kind of place that a run went to."""
    return str(run.spec.get("place", {}).get("kind", ""))


def watch(run: Run, store: Store, *, detach: bool, output: Output) -> int:
    """Follow a run on Kubernetes to its end."""
    from tradewind.launch.kubernetes import logs
    from tradewind.launch.kubernetes.place import cluster_of, place_of
    from tradewind.launch.kubernetes.status import refresh

    place = place_of(run)
    assert place is not None, "it was submitted to a cluster"

    def follow() -> None:
        with cluster_of(place) as cluster:
            logs.follow(run.id, cluster, quiet_line if output == "json" else print_line)

    def over(run: Run, store: Store) -> Run:
        run = refresh(run, store)
        remember(run, store)
        return run

    where = f"Job {place.job} in {place.namespace}, {place.cluster}"
    return attend(run, store, where, follow, over, detach=detach, output=output)


def remember(run: Run, store: Store) -> None:
    """Keep what the cluster says it did to a run; what it does not say is missing from the ledger only."""
    from tradewind.launch.kubernetes.incidents import note_incidents

    try:
        note_incidents(run, store)
    except TradewindError as error:
        print(f"tradewind: what the cluster did to the run is not known: {error}", file=sys.stderr)


def logs_on(run: Run, store: Store, *, follow: bool, rank: int | None, attempt: int | None) -> int:
    """`tradewind logs` of a run on a cluster."""
    if kind_of(run) == "ray":
        from tradewind.cli import ray

        return ray.logs_on(run, following=follow, rank=rank, attempt=attempt)
    from tradewind.launch.kubernetes import logs
    from tradewind.launch.kubernetes.place import cluster_of, place_of
    from tradewind.launch.kubernetes.status import OVER

    if attempt is not None:
        raise SpecError("--attempt: pods are not told apart by attempt; leave it out, every pod is printed")
    place = place_of(run)
    assert place is not None, "the caller asked for a run on a cluster"
    host = None if rank is None else host_of(run, rank)
    show = print_line if rank is None else of_rank(rank)
    with cluster_of(place) as cluster:
        if follow and run.state not in OVER:
            logs.follow(run.id, cluster, show, host)
        else:
            for line in logs.print_lines(run.id, cluster, host):
                show(line)
    return ExitCode.OK


def host_of(run: Run, rank: int) -> int:
    """The host on which a rank is; raises SpecError for a rank that the run does not have."""
    workers, hosts = int(run.spec.get("workers", 1)), int(run.spec.get("hosts", 1))
    if not 0 <= rank < workers:
        raise SpecError(f"--rank {rank}: run {run.id} has ranks 0 to {workers - 1}")
    return rank // (workers // hosts)


def of_rank(rank: int) -> Callable[[Line], None]:
    """Print what is said of a rank's host, and of its output the lines of that rank."""

    def show(line: Line) -> None:
        if line.about or line.text.startswith(f"[rank{rank}] "):
            print_line(line)

    return show


def print_line(line: Line) -> None:
    """A host's output to stdout; what is said about the host to stderr."""
    print(f"[host{line.host}] {line.text}", file=sys.stderr if line.about else sys.stdout, flush=True)


def quiet_line(line: Line) -> None:
    """Nothing: whoever reads JSON reads the end."""


def stop_on(run: Run, store: Store, *, now: bool, output: Output) -> int:
    """`tradewind stop` of a run on a cluster."""
    if kind_of(run) == "ray":
        from tradewind.cli import ray

        return ray.stop_on(run, store, output=output)
    from tradewind.launch.kubernetes.status import stop

    emit(row(stop(run, store, now=now), time.time()), output, ("id", "name", "state", "exit_code"))
    return ExitCode.OK
