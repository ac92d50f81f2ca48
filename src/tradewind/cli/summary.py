"""What `tradewind show` says about a run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from tradewind.cli.output import cell, print_pairs, print_table

if TYPE_CHECKING:
    from tradewind.store import Attempt, Event, Run, Store


def summarize(run: "Run", store: "Store") -> dict[str, Any]:
    """A run with its attempts, failures, recoveries, last metrics and ledgers."""
    from tradewind.diagnose.ledger import newest_s, rank_ledgers, run_ledger

    attempts, events = store.attempts(run.id), store.events(run.id)
    metrics = {m.name: {"step": m.step, "value": m.value} for m in store.metrics(run.id) if m.rank == 0}
    ended_s = run.ended_s or newest_s(events, attempts, run.created_s)
    return {
        "run": run,
        "wall_s": ended_s - run.created_s,
        "attempts": attempts,
        "failures": [
            {"attempt": e.attempt, "rank": e.rank, "t_s": e.t_s} | e.data
            for e in events
            if e.kind == "failure"
        ],
        "interruptions": interruptions(events, attempts),
        "recovered_s": [e.data["seconds"] for e in events if e.kind == "recovered"],
        "metrics": metrics,
        "ledger": run_ledger(events, attempts, created_s=run.created_s, ended_s=ended_s),
        "rank_ledgers": rank_ledgers(events, attempts, created_s=run.created_s, ended_s=ended_s),
    }


def interruptions(events: "Sequence[Event]", attempts: "Sequence[Attempt]") -> list[dict[str, Any]]:
    """What was done to a run or to one of its hosts, in order: hosts lost, nodes under them, and absences."""
    from tradewind.diagnose.absence import CLUSTER, absences

    lost = [event for event in events if event.kind == "host_lost"]
    nodes = {
        e.data.get("host"): e for e in reversed(events) if e.kind == CLUSTER and e.data["what"] == "node_lost"
    }
    found = [
        *({"attempt": e.attempt, "what": "host_lost", "t_s": e.t_s} | e.data for e in lost),
        *(
            {"what": "node_lost", "t_s": e.t_s, "host": host, "why": e.data["said"]}
            for host, e in nodes.items()
        ),
        *(
            {"what": one.kind, "t_s": one.begin_s, "seconds": one.back_s - one.begin_s} | to_builtins(one)
            for one in absences(events, attempts)
        ),
    ]
    return sorted(found, key=lambda one: one["t_s"])


def print_summary(found: dict[str, Any], ledger: bool) -> None:
    """Print a summary for a person, the first failure first."""
    for failure in found["failures"][:1]:
        print(
            f"first failure: attempt {failure['attempt']} rank {failure['rank']} ({failure['class']}): {failure['exception']}"
        )
        print("".join(f"  | {line}\n" for line in failure["text"].splitlines()[-12:]))
    run = found["run"]
    print_pairs(
        {
            "run": run.id,
            "name": run.name,
            "state": run.state,
            "exit_code": run.exit_code,
            "wall_s": found["wall_s"],
            "snapshot": run.snapshot,
            "dir": run.dir,
            "recovered_s": ", ".join(cell(s) for s in found["recovered_s"]),
        }
    )
    print()
    rows = [
        {
            "attempt": a.index,
            "state": a.state,
            "wall_s": a.ended_s - a.started_s if a.ended_s and a.started_s else None,
            "exit_code": a.exit_code,
            "reason": a.reason,
        }
        for a in found["attempts"]
    ]
    print_table(rows)
    if found["interruptions"]:
        print()
        print_table([interruption(one) for one in found["interruptions"]])
    if found["metrics"]:
        print()
        print_table([{"metric": name, **value} for name, value in found["metrics"].items()])
    if ledger:
        print()
        print_ledger(found["ledger"])


def interruption(found: dict[str, Any]) -> dict[str, Any]:
    """One line of what was done to a run, or to one of its hosts."""
    why = f"{found['host']}: {found['why']}" if "host" in found else found["why"]
    return {
        "interrupted": found["what"],
        "in attempt": found.get("attempt"),
        "away_s": found.get("seconds"),
        "why": why,
    }


def print_ledger(ledger: dict[str, float]) -> None:
    """Print where the wall time went, largest first."""
    total = sum(ledger.values())
    rows = [
        {"bucket": name, "seconds": f"{s:.2f}", "share": f"{s / total:.1%}" if total else "-"}
        for name, s in sorted(ledger.items(), key=lambda item: -item[1])
        if s > 0.0005
    ]
    print_table([*rows, {"bucket": "wall", "seconds": f"{total:.2f}", "share": "100.0%"}])
