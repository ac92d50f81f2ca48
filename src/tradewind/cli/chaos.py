"""`tradewind chaos`: hurt a run on purpose, and see that it gets over it."""

from pathlib import Path
from typing import TYPE_CHECKING

from tradewind.cli.flags import Output, OutputFlag
from tradewind.cli.output import emit
from tradewind.errors import TradewindError
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from tradewind.agent.chaos import Injector


def chaos(
    run: str,
    *,
    kill_every: str = "30s",
    signal: str = "KILL",
    rank: str = "any",
    seed: int = 0,
    duration: str = "5m",
    continue_after: str | None = None,
    output: OutputFlag = "table",
) -> int:
    """Kill workers of a run of this machine again and again, and count it; each is an event of the run.

    Parameters
    ----------
    run
        Id, unique start of an id, name, or `last`.
    kill_every
        Time between two injections.
    signal
        KILL, TERM (asks the run to commit and leave) or STOP (a hang).
    rank
        The rank to hit, or `any`: one drawn anew each time.
    seed
        The same seed hits the same ranks.
    duration
        How long to go on; it ends earlier with the run.
    continue_after
        With STOP: let the worker go on after this long; never by default.
    """
    from tradewind.agent.chaos import Injector, Kind, Schedule, read_kind
    from tradewind.agent.lock import is_held
    from tradewind.spec.units import parse_duration_s
    from tradewind.store import open_store

    kind = read_kind(signal)
    if continue_after is not None and kind is not Kind.STOP:
        raise TradewindError(f"--continue-after goes with --signal STOP, and the signal is {signal}")
    with open_store() as store:
        found = store.run(run)
        if not is_held(Path(found.dir)):
            raise TradewindError(f"run {found.id} does not run here; it is {found.state}")
        workers = int(found.spec.get("workers", 1))
        schedule = Schedule.every(
            parse_duration_s(kill_every),
            parse_duration_s(duration),
            workers,
            kind,
            seed=seed,
            rank=read_rank(rank, workers),
            seconds=parse_duration_s(continue_after) if continue_after else 0.0,
        )
        injector = Injector(found.id, store)
        injector.run(schedule)
    report(injector, seed, output)
    return ExitCode.OK


def report(injector: "Injector", seed: int, output: Output) -> None:
    """What was done, and how often."""
    rows = [
        {"t_s": d.t_s, "what": d.injection.kind, "rank": d.injection.rank, "pid": d.pid, "step": d.step}
        for d in injector.done
    ]
    if output == "json":
        about = {"run": injector.run_id, "seed": seed, "counts": dict(injector.counts)}
        emit(about | {"missed": len(injector.missed), "done": rows}, output)
        return
    emit(rows, output)
    late = f", and the run ended before {len(injector.missed)} more" if injector.missed else ""
    print(f"{len(rows)} injected into run {injector.run_id}{late}")


def read_rank(text: str, workers: int) -> int | None:
    """A rank of the run, or None for any."""
    if text == "any":
        return None
    if not text.isdigit() or int(text) >= workers:
        raise TradewindError(f"--rank {text}: the run has ranks 0 to {workers - 1}; give one, or `any`")
    return int(text)
