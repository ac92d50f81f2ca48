"""The report in brief, for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tradewind.console.scales import number, seconds
from tradewind.console.view import RunView
from tradewind.scale.outcome import LoadResult

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_STYLES = {"succeeded": "green", "failed": "red", "pass": "green", "fail": "red"}
_BAR = 46


def brief(view: RunView) -> "Group":
    """The run's state, ledger, failures, metrics and load as one rich renderable."""
    from rich.console import Group

    parts: list[RenderableType] = [
        _headline(view),
        _ledger(view),
        *_failures(view),
        *_metrics(view),
        *_loads(view.loads),
    ]
    return Group(*parts)


def _headline(view: RunView) -> "Text":
    from rich.text import Text

    text = Text.assemble(
        (view.run.name, "bold"), f"  {view.run.id}  ", (view.run.state, _STYLES.get(view.run.state, "yellow"))
    )
    text.append(f"  {seconds(view.wall_s)}")
    if view.last_step is not None:
        text.append(f"  {view.last_step:,} steps")
    if view.goodput is not None:
        text.append(f"  goodput {view.goodput:.1%}")
    return text


def _table(*columns: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right", no_wrap=True)
    return table


def _ledger(view: RunView) -> "Table":
    from rich.text import Text

    total = sum(view.ledger.values())
    table = _table("ledger", "seconds", "share", "")
    table.columns[-1].justify = "left"
    for name, value in view.ledger.items():
        if value >= 5e-4:
            bar = Text(
                "█" * max(round(value / total * _BAR), 1),
                style="cyan" if name == "compute" else "bright_black",
            )
            table.add_row(name.replace("_", " "), f"{value:.2f}", f"{value / total:.1%}", bar)
    table.add_row("[bold]sum = wall time", f"[bold]{total:.2f}", "")
    return table


def _failures(view: RunView) -> list["Text"]:
    from rich.text import Text

    lines = []
    for failure in view.failures:
        where = f"rank {failure.rank}" if failure.rank is not None else "the run"
        line = Text.assemble(("failure  ", "red"), f"at {failure.t_s:.1f} s, {where}: {failure.kind}; ")
        if failure.recovered_s is None:
            line.append("not recovered", "red")
        else:
            line.append(f"next step after {failure.recovered_s:.2f} s", "green")
        lines.append(line)
    return lines


def _metrics(view: RunView) -> list["Table"]:
    if not view.curves:
        return []
    table = _table("metric", "first", "last", "step")
    for name, points in sorted(view.curves.items()):
        from rich.markup import escape

        table.add_row(escape(name), number(points[0][1]), number(points[-1][1]), f"{points[-1][0]:,.0f}")
    return [table]


def _loads(loads: Sequence[LoadResult]) -> list["Table"]:
    from rich.text import Text

    if not loads:
        return []
    table = _table("load", "offered/s", "goodput/s", "in time", "refused", "p50 ms", "p99 ms", "verdict")
    for load in loads:
        table.add_row(
            f"{load.multiple:g}x" if load.multiple else f"{load.rate:g}/s",
            number(load.offered_per_s),
            number(load.goodput_per_s),
            f"{load.attainment:.1%}",
            f"{load.refused:,}",
            number(load.p50_ms),
            number(load.p99_ms),
            Text(load.verdict, style=_STYLES.get(load.verdict, "yellow")),
        )
    return [table]


def summary(view: RunView) -> dict[str, object]:
    """The same as plain values, for `-o json`."""
    return {
        "run": view.run.id,
        "name": view.run.name,
        "state": view.run.state,
        "wall_s": view.wall_s,
        "steps": view.last_step,
        "goodput": view.goodput,
        "ledger": view.ledger,
        "failures": view.failures,
        "metrics": {name: points[-1][1] for name, points in sorted(view.curves.items())},
        "loads": [
            {
                "multiple": load.multiple,
                "rate": load.rate,
                "goodput_per_s": load.goodput_per_s,
                "p50_ms": load.p50_ms,
                "p99_ms": load.p99_ms,
                "verdict": load.verdict,
            }
            for load in view.loads
        ],
    }
