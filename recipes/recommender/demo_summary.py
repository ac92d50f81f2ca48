"""What the demo prints at its end: quality, recovery, ledger, latency and goodput."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tradewind.diagnose.ledger import run_ledger
from tradewind.scale.outcome import LoadResult
from tradewind.store import Store


def print_summary(
    store: Store,
    run: str,
    quality: Mapping[str, Mapping[str, float]],
    loads: Sequence[tuple[float, LoadResult]],
) -> None:
    """Print the four tables of the demo."""
    console = Console()
    console.print(quality_table(quality))
    for event in store.events(run, kind="recovered"):
        console.print(f"From kill -9 to the next committed step: {event.data['seconds']:.2f} s")
    console.print(ledger_table(ledger_of(store, run)))
    console.print(load_table(loads))


def ledger_of(store: Store, run: str) -> Mapping[str, float]:
    """The run's own ledger; what the demo noted in the run after its end is not its time."""
    found = store.run(run)
    events, attempts = store.events(run), store.attempts(run)
    return run_ledger(events, attempts, created_s=found.created_s, ended_s=found.ended_s)


def quality_table(quality: Mapping[str, Mapping[str, float]]) -> Table:
    """Full-ranking test metrics of each model."""
    table = Table(
        "model", "NDCG@10", "HR@10", title="Quality on the held-out last item, ranked among all items"
    )
    for model, metrics in quality.items():
        table.add_row(model, f"{metrics['ndcg@10']:.4f}", f"{metrics['hr@10']:.4f}")
    return table


def ledger_table(buckets: Mapping[str, float]) -> Table:
    """Where the run's wall time went; the buckets add up to it."""
    total = sum(buckets.values())
    table = Table("bucket", "seconds", "share", title=f"Ledger of the killed run, {total:.1f} s of wall time")
    for name, seconds in sorted(buckets.items(), key=lambda item: -item[1]):
        if seconds:
            table.add_row(name, f"{seconds:.2f}", f"{seconds / total:.1%}")
    return table


def load_table(loads: Sequence[tuple[float, LoadResult]]) -> Table:
    """Latency and goodput at each share of capacity."""
    table = Table(
        "load",
        "offered/s",
        "in time/s",
        "refused",
        "p50 ms",
        "p99 ms",
        title="Served inside the latency budget",
    )
    for share, result in loads:
        table.add_row(
            f"{share:.1f}x",
            f"{result.offered / result.duration_s:.0f}",
            f"{result.goodput_per_s:.0f}",
            str(result.refused),
            f"{result.p50_ms:.1f}",
            f"{result.p99_ms:.1f}",
        )
    return table
