"""Following a run that is on a cluster, wherever that is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tradewind.cli.output import emit
from tradewind.cli.runs import print_start, row
from tradewind.names import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tradewind.cli.flags import Output
    from tradewind.store import Run, Store


def attend(
    run: Run,
    store: Store,
    where: str,
    follow: Callable[[], None],
    refresh: Callable[[Run, Store], Run],
    *,
    detach: bool,
    output: Output,
) -> int:
    """Follow a run to its end, which Ctrl-C leaves to itself; the exit code says how it ended.

    `where` is said first, `follow` prints until the run is over, and `refresh` gives it as it is then.
    """
    if detach:
        print_start(run, output)
        return ExitCode.OK
    print(f"run {run.id} ({run.name}): {where}", file=sys.stderr)
    try:
        follow()
    except KeyboardInterrupt:
        print(
            f"run {run.id} goes on; `tradewind logs -f {run.id}`, `tradewind stop {run.id}`", file=sys.stderr
        )
        raise
    run = refresh(run, store)
    if output == "json":
        emit(row(run, time.time()), output)
    else:
        reason = next((a.reason for a in reversed(store.attempts(run.id)) if a.reason), "")
        print(f"run {run.id}: {run.state}" + (f": {reason}" if reason else ""), file=sys.stderr)
    return ExitCode.FAILED if run.exit_code is None else run.exit_code
