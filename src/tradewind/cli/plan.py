"""The command `plan`, and what `run --dry-run` prints for a cluster."""

from __future__ import annotations

from tradewind.cli.brief import brief
from tradewind.cli.output import emit, print_pairs, to_plain
from tradewind.cli.runs import read_spec, show_plan
from tradewind.errors import ClusterError, MissingExtraError, SpecError
from tradewind.names import ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tradewind.cli.flags import Output, OutputFlag, Passed
    from tradewind.launch.kubernetes.forecast import Forecast, Planned, Waited
    from tradewind.launch.kubernetes.outlook import Outlook
    from tradewind.spec import RunSpec
    from tradewind.store import Run

EXITS = {
    "fits now": ExitCode.OK,
    "fits later": ExitCode.REQUEUE,
    "can never fit": ExitCode.REFUSED,
    "unknown": ExitCode.NO_VERDICT,
}
"""Verdict -> exit code: 0 now, 75 later, 4 never as the cluster is, 5 when the user may not see enough of it."""
_NODES_SHOWN = 8
_RUNS_LOOKED_AT = 1000


def plan(
    script: str,
    *args: Passed,
    workers: int | None = None,
    name: str | None = None,
    max_restarts: int | None = None,
    on: str | None = None,
    hosts: int | None = None,
    gpus: int | None = None,
    image: str | None = None,
    output: OutputFlag = "table",
) -> int:
    """Say whether a run fits now, later or never, on which nodes, at what price, and how long others waited.

    Exits with 0 if it fits now, 75 if it fits later, 4 if it can never fit as the cluster is, and 5 if that
    cannot be known. Writes nothing.

    Parameters
    ----------
    script
        A Python script, or a YAML file that holds a RunSpec.
    args
        Arguments of the script, after `--`.
    workers
        Worker processes on all hosts; one for each GPU or host unless the YAML file says otherwise.
    on
        `k8s`, or `k8s:NAME` for the context in contexts/NAME.yaml; this machine by default.
    hosts
        Machines or pods; 1 by default.
    gpus
        GPUs of each host.
    image
        Container image, instead of the context's.
    output
        `table` for people, `json` for programs.
    """
    flags = {"workers": workers, "name": name, "max_restarts": max_restarts}
    spec = read_spec(script, args, hosts=hosts, gpus=gpus, image=image, **flags)
    if on is None:
        return show_plan(spec, output)
    with brief():
        return show(ask(spec, on), output)


def dry_run_on(spec: RunSpec, on: str, output: Output) -> int:
    """What `plan` says, after what would be submitted; without a cluster that can be asked, the latter alone."""
    from tradewind.launch.kubernetes.preview import preview

    run = preview(spec, on)
    try:
        found = ask(spec, on)
    except (ClusterError, MissingExtraError, SpecError) as error:
        emit(to_plain(run) | {"forecast": None, "not_asked": str(error)}, output)
        return ExitCode.OK
    if output == "json":
        emit(to_plain(found.run) | {"forecast": to_plain(found.forecast)}, output)
    else:
        print_pairs(to_plain(found.run))
        print()
        print_forecast(found.run.name, found.run.hosts, found.forecast)
    return EXITS[found.forecast.outlook.verdict]


def ask(spec: RunSpec, on: str) -> Planned:
    """The run beside its cluster."""
    from tradewind.launch.kubernetes.forecast import planned

    return planned(spec, on, earlier_runs)


def earlier_runs() -> list[Run]:
    """The newest runs that the store knows."""
    from tradewind.store import open_store

    with open_store() as store:
        return store.runs(_RUNS_LOOKED_AT)


def show(found: Planned, output: Output) -> int:
    """Print it; the exit code is the verdict."""
    if output == "json":
        emit(found, output)
    else:
        print_forecast(found.run.name, found.run.hosts, found.forecast)
    return EXITS[found.forecast.outlook.verdict]


def print_forecast(name: str, hosts: int, found: Forecast) -> None:
    """The verdict first, then the numbers, then what to do."""
    print(f"{name} {found.outlook.verdict} on {found.on} (namespace {found.namespace})")
    print(f"  {found.outlook.because}\n")
    for line in lines(hosts, found):
        print(line)


def lines(hosts: int, found: Forecast) -> Iterator[str]:
    """Everything below the verdict."""
    seen = found.outlook
    yield from table(hosts, seen)
    yield from (f"  {line}" for line in seen.quotas)
    if seen.nodes:
        yield "\ncould go to (hosts on each)"
        more = len(seen.nodes) - _NODES_SHOWN
        yield from (f"  {spot.node}  {spot.hosts}" for spot in seen.nodes[:_NODES_SHOWN])
        yield from ([f"  and {more} more nodes"] if more > 0 else [])
    if seen.must_end:
        yield "\nmust end first"
        for each in seen.must_end:
            holds = ", ".join(f"{value} {name}" for name, value in each.holds.items())
            yield f"  {each.owner}  holds {holds} on {', '.join(each.nodes[:4])}"
    if seen.changes:
        yield "\nwould fit if you" if len(seen.changes) == 1 else "\nwould fit if you did one of these"
        yield from (f"  {line}" for line in seen.changes)
    price = found.price_per_hour
    yield f"\ncosts    {'unknown (name `prices` in the context)' if price is None else f'{price:.2f} an hour'}"
    yield f"waited   {said(found.waited)}"
    yield from (f"note     {line}" for line in (*seen.notes, *found.unread))


def table(hosts: int, seen: Outlook) -> Iterator[str]:
    """What is asked for beside what is free."""
    rows = [("", "each host", f"all {hosts}", "free")]
    rows += [(name, value, seen.all[name], seen.free.get(name, "0")) for name, value in seen.each.items()]
    rows += [("hosts", "", str(hosts), f"room for {seen.room_now} now, {seen.room_ever} if all else ended")]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        yield (
            "  "
            + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        )


def said(found: Waited | None) -> str:
    """How long runs of the same shape waited."""
    if found is None:
        return "no run of this shape has started there yet"
    return (
        f"{duration(found.median_s)} at the median, {duration(found.p90_s)} at the 90th percentile "
        f"of {found.runs} runs of this shape; {found.waiting} wait now"
    )


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
