"""One line on the terminal while load is sent, and the tables after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tradewind.cli.output import print_table, to_plain

if TYPE_CHECKING:
    from tradewind.cli.flags import Output
    from tradewind.scale.load import Progress
    from tradewind.scale.outcome import LoadResult, Slice

SLICE_COLUMNS = (
    "name", "from_s", "to_s", "offered", "goodput_per_s", "attainment", "refused", "errors", "p50_ms", "p99_ms",
)  # fmt: skip


@contextmanager
def live_line(output: Output) -> Iterator[Callable[[Progress], None] | None]:
    """What to tell of a run's progress; None where nobody watches: no terminal, or JSON wanted.

    It is drawn from the generator's own loop, twice a second: a thread that draws would take turns with it.
    """
    if output == "json" or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda progress: live.update(describe(progress), refresh=True)


def describe(progress: Progress) -> str:
    """A run's progress in one line."""
    answered = progress.in_time + progress.late + progress.refused + progress.errors
    share = f"{progress.in_time / answered:.1%}" if answered else "-"
    return (
        f"{progress.elapsed_s:.0f}/{progress.total_s:.0f} s  due {progress.due:,}  in time {share}  "
        f"late {progress.late:,}  refused {progress.refused:,}  errors {progress.errors:,}  "
        f"own lag {progress.lag_ms:.1f} ms  (Ctrl-C ends it with what there is)"
    )


def show_slices(result: LoadResult) -> None:
    """The tables of classes, phases and endpoints, where a result has them."""
    _table(result.classes, (*SLICE_COLUMNS, "verdict"))
    _table(result.phases, (*SLICE_COLUMNS, "settle_s"))
    _table(result.endpoints, SLICE_COLUMNS)


def _table(slices: Sequence[Slice], columns: Sequence[str]) -> None:
    if not slices:
        return
    print()
    rows = [to_plain(one) for one in slices]
    print_table([row | {"from_s": row["begin_s"], "to_s": row["end_s"]} for row in rows], columns)


def audited(result: LoadResult) -> str:
    """What the generator says of itself, in one line."""
    audit = result.audit
    if audit is None:
        return ""
    return (
        f"generator: lag p99 {result.schedule_lag_p99_ms:.2f} ms (worst {result.schedule_lag_max_ms:.1f}), "
        f"{audit.cpu_share:.0%} of a core, {result.starved} starved, {audit.connections} connections, "
        f"switched out {audit.switched_out} times, clock set by {audit.clock_step_ms:.1f} ms"
    )
