"""The terminal's brief says what the page says."""

import msgspec
from rich.console import Console

from tests.console.build import BEGIN_S, loads, record_run
from tradewind.console.brief import brief, summary
from tradewind.console.view import collect
from tradewind.store import Metric, Run, Store


def printed(store: Store, run: str, width: int = 100) -> str:
    """The brief as plain text."""
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(brief(collect(run, store, loads())))
    return capture.get()


def test_the_brief_holds_every_headline(store: Store) -> None:
    """State, sum of the ledger, failure and recovery, metrics and verdicts are all there."""
    text = printed(store, record_run(store))
    for said in ("hstu-ml100k", "succeeded", "62.0 s", "600 steps", "sum = wall time", "62.00"):
        assert said in text
    assert "rank 1: killed; next step after 3.10 s" in text
    assert [line.split()[-1] for line in text.splitlines() if line.strip().startswith(("0.5x", "1x", "2x"))] == [
        "pass", "pass", "fail",
    ]  # fmt: skip


def test_square_brackets_are_text(store: Store) -> None:
    """Names that look like terminal markup are printed as they are."""
    run = store.add_run(Run(id="5" * 12, name="[red]a[/red]", created_s=BEGIN_S)).id
    store.add_metrics([Metric(run=run, attempt=0, rank=0, step=1, name="[bold]x[/bold]", value=1, t_s=0)])
    text = printed(store, run)
    assert "[red]a[/red]" in text
    assert "[bold]x[/bold]" in text


def test_the_summary_is_json(store: Store) -> None:
    """`-o json` carries the same figures as plain values."""
    plain = msgspec.json.decode(msgspec.json.encode(summary(collect(record_run(store), store, loads()))))
    assert plain["wall_s"] == 62.0
    assert plain["failures"][0]["recovered_s"] == 3.1
    assert [load["verdict"] for load in plain["loads"]] == ["pass", "pass", "fail"]
