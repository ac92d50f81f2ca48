"""`tradewind load`, `report` and `doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tradewind.cli.flags import Output
from tradewind.cli.output import emit
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.scale.outcome import LoadResult

_COLUMNS = (
    "load", "offered_per_s", "goodput_per_s", "attainment", "refused", "errors",
    "p50_ms", "p90_ms", "p99_ms", "p999_ms", "verdict",
)  # fmt: skip

OutputFlag = Annotated[
    Output, Parameter(name=["--output", "-o"], help="table for people, json for programs.")
]


def load(
    url: str,
    *,
    rate: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help="Requests per second, or a multiple of measured capacity: 200, 0.5x. Repeat for several levels.",
        ),
    ] = None,
    duration: Annotated[str, Parameter(help="Length of each level, such as 20s or 5m.")] = "20s",
    deadline: Annotated[str, Parameter(help="An answer later than this is not goodput.")] = "50ms",
    body: Annotated[
        Path | None, Parameter(help="File with one JSON body a line, POSTed in turn; GET without it.")
    ] = None,
    header: Annotated[list[str] | None, Parameter(negative=(), help="'name: value', repeatable.")] = None,
    shape: Annotated[
        str | None, Parameter(help="How the rate goes: steady, step, spike, ramp, black-friday.")
    ] = None,
    peak: Annotated[
        float | None, Parameter(help="Highest rate of a shape, as a multiple of --rate; 3 if not given.")
    ] = None,
    traffic_class: Annotated[
        list[str] | None,
        Parameter(
            name="--class",
            negative=(),
            help="A kind of traffic instead of --rate: 'name=high,rate=100,tenant=a,priority=high,deadline=30ms'.",
        ),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        Parameter(negative=(), help="A further URL=WEIGHT beside the first, whose weight is 1."),
    ] = None,
    plan: Annotated[Path | None, Parameter(help="YAML with classes, endpoints, shape and peak.")] = None,
    replay: Annotated[
        Path | None, Parameter(help='Recorded requests, one {"t_s": 1.5, "body": {...}} a line.')
    ] = None,
    speed: Annotated[float, Parameter(help="How much faster than recorded a replay is sent.")] = 1.0,
    objective: Annotated[float, Parameter(help="Share of requests that must be in time to pass.")] = 0.99,
    warmup: Annotated[
        str, Parameter(help="Length of the load sent before counting begins; 0 for none.")
    ] = "1s",
    connections: Annotated[int, Parameter(help="Most connections open at once.")] = 512,
    seed: Annotated[int, Parameter(help="Seed of the arrival times.")] = 0,
    run: Annotated[str | None, Parameter(help="Keep the results with this run, for its report.")] = None,
    allow_remote: Annotated[
        bool, Parameter(negative=(), help="Allow a target that is not this machine. Only load what is yours.")
    ] = False,
    output: OutputFlag = "table",
) -> int:
    """Offer open-loop load to an endpoint and measure latency and goodput.

    Requests leave at Poisson arrival times fixed in advance by the seed, whether or not earlier ones were
    answered, as independent users would send them. Latency counts from the scheduled instant, so a stall is
    charged to every request that was due during it. When the generator itself could not keep its schedule, or
    was too busy to read answers in time, there is no verdict. Ctrl-C ends a run with what there is.

    Exit codes: 0 every level met the objective, 4 one missed it, 5 no verdict, 130 interrupted.

    One level, or three around the measured capacity kept with the newest run:

    `tradewind load http://127.0.0.1:8080/v1/recommend --body requests.jsonl --rate 200 --duration 20s`

    `tradewind load http://127.0.0.1:8080/v1/recommend --body requests.jsonl --rate 0.5x --rate 1x --rate 2x --run last`

    A peak: 0.7 of capacity, three times that in the middle third, and how long goodput took to settle:

    `tradewind load http://127.0.0.1:8080/v1/recommend --body requests.jsonl --rate 0.7x --shape step --peak 3`

    Two classes of one endpoint at twice its capacity:

    `tradewind load URL --body requests.jsonl --class name=top,rate=0.5x,priority=high --class name=rest,rate=1.5x,priority=low`

    Yesterday's requests at twice their speed, a third of them to a second server:

    `tradewind load URL --replay yesterday.jsonl --speed 2 --endpoint http://127.0.0.1:8081/v1/recommend=0.5`
    """
    from tradewind.cli.loadlive import live_line
    from tradewind.cli.loadplan import parse_header, plans, read_bodies, read_recorded, traffic
    from tradewind.scale.load import execute
    from tradewind.spec import parse_duration_s

    bodies = read_bodies(body) if body else None
    deadline_ms = parse_duration_s(deadline) * 1000
    headers = dict(parse_header(text) for text in header or ())
    run_id = find_run(run) if run else None
    recorded = read_recorded(replay, speed) if replay else []
    asked = traffic(plan, traffic_class, endpoint, shape, peak)
    common = {
        "url": url,
        "duration_s": parse_duration_s(duration),
        "deadline_ms": deadline_ms,
        "objective": objective,
        "headers": headers,
        "seed": seed,
        "warmup_s": 0.0 if warmup.rstrip("ms") == "0" else parse_duration_s(warmup),
        "connections": connections,
        "allow_remote": allow_remote,
        "speed": speed,
    }
    results = []
    for level in plans(common, rate, asked, recorded, bodies):
        with live_line(output) as watch:
            results.append(execute(level, bodies, recorded, watch))
        if run_id:
            keep(run_id, results[-1])
        if results[-1].partial:
            break
    show(results, output)
    return exit_code(results)


def find_run(ref: str) -> str:
    """The id of the run that results are kept with; fails before any load is sent."""
    from tradewind.store import open_store

    with open_store() as store:
        return store.run(ref).id


def keep(run: str, result: "LoadResult") -> None:
    """Appends a result to the run's events, where its report finds it."""
    import time

    import msgspec

    from tradewind.store import Event, open_store

    event = Event(run=run, attempt=0, t_s=time.time(), kind="load", data=msgspec.to_builtins(result))
    with open_store() as store:
        store.add_events([event])


def show(results: list["LoadResult"], output: Output) -> None:
    """Prints results; the reasons behind each verdict follow the table."""
    import msgspec

    from tradewind.cli.loadlive import audited, show_slices

    rows = [msgspec.to_builtins(result) for result in results]
    if output == "json":
        emit(rows, output)
        return
    named = [{"load": f"{r.multiple:g}x" if r.multiple else f"{r.rate:g}/s"} for r in results]
    emit([name | row for name, row in zip(named, rows, strict=True)], output, _COLUMNS)
    for name, result in zip(named, results, strict=True):
        show_slices(result)
        print(f"{name['load']}: {result.verdict}: {result.why}")
        print(audited(result))


def exit_code(results: list["LoadResult"]) -> int:
    """130 when it was interrupted, else 5 when any level has no verdict, else 4 when any failed, else 0."""
    if any(result.partial for result in results):
        return ExitCode.INTERRUPTED
    verdicts = {result.verdict for result in results}
    if "no-verdict" in verdicts:
        return ExitCode.NO_VERDICT
    return ExitCode.REFUSED if "fail" in verdicts else ExitCode.OK


def report(
    run: str = "last",
    *,
    out: Annotated[Path, Parameter(help="Where the page goes.")] = Path("report.html"),
    output: OutputFlag = "table",
) -> int:
    """Write one self-contained HTML page about a run, and its brief in the terminal.

    Curves, the ledger of wall time, failures and recoveries, latency and goodput under load (from
    `tradewind load --run RUN`). The page needs no network. RUN is an id, the start of one, a name, or `last`.

    `tradewind report last --out report.html`
    """
    from tradewind.console.report import render
    from tradewind.console.view import collect
    from tradewind.store import open_store

    with open_store() as store:
        view = collect(run, store)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(view), encoding="utf-8")
    if output == "json":
        from tradewind.console.brief import summary

        emit(summary(view) | {"report": str(out.absolute())}, output)
        return ExitCode.OK
    from rich.console import Console

    from tradewind.console.brief import brief

    console = Console()
    console.print(brief(view))
    print(f"report: {out.absolute()}")
    return ExitCode.OK


def doctor(*, output: OutputFlag = "table") -> int:
    """Check this machine for what Tradewind needs, and say how to get what is missing.

    Exits 1 when something necessary is missing; absent optional parts only inform.
    """
    from tradewind.console.doctor import diagnose

    checks = diagnose()
    if output == "json":
        emit(checks, output)
    else:
        rows = [
            {
                "check": check.name,
                "ok": "ok" if check.ok else ("MISSING" if check.needed else "absent"),
                "detail": check.detail,
                "remedy": "" if check.ok else check.remedy,
            }
            for check in checks
        ]
        emit(rows, output, ("check", "ok", "detail", "remedy"))
    return ExitCode.OK if all(check.ok or not check.needed for check in checks) else ExitCode.FAILED
