"""Where the seconds of a recovery went: from a run's events, and from its workers' stamps where there are any.

    python -m bench.peers.training.breakdown RUN   # any run of the store that TRADEWIND_HOME names

Every phase ends when the last rank has ended it, since a group waits for its slowest. A phase whose end was
not recorded is part of the next one: without stamps, everything in the script before its loop is.
"""

import argparse
import statistics
from collections.abc import Iterable, Sequence

from bench.peers.training.stamps import Stamp
from tradewind.store import Event, open_store

MARKS = {
    "worker_exit": "kill seen by the agent",
    "attempt_started": "survivors out of the group",
    "worker_started": "replacement forked",
    "enter": "script entered",
    "imported": "imports",
    "joined": "process group formed",
    "built": "model wrapped (DDP or FSDP2)",
    "start": "loop begun, its own group formed",
    "resume": "state restored",
    "step": "first step",
}
"""What ends a phase, in order: an event's kind, a journal entry's, or a stamp's -> the phase's name."""

Phases = dict[str, float]


def failed_attempts(events: Iterable[Event]) -> list[int]:
    """Attempts that a failure ended and another followed."""
    started = {event.attempt for event in events if event.kind == "attempt_started"}
    return sorted(
        {event.attempt for event in events if event.kind == "failure" and event.attempt + 1 in started}
    )


def phases_of(
    events: Sequence[Event], attempt: int, stamps: Sequence[Stamp] = (), killed_s: float | None = None
) -> Phases:
    """Seconds by phase of the recovery after `attempt`; without the kill's instant it begins when seen."""
    seen_s = min(e.t_s for e in events if e.kind == "failure" and e.attempt == attempt)
    marks = {"worker_exit": seen_s} | marks_of(events, attempt + 1)
    if "step" not in marks:
        return {}
    marks |= {
        kind: max(s.t_s for s in stamps if s.kind == kind and seen_s < s.t_s <= marks["step"])
        for kind in MARKS
        if any(s.kind == kind and seen_s < s.t_s <= marks["step"] for s in stamps)
    }
    at_s = seen_s if killed_s is None else killed_s
    phases = {}
    for kind, name in MARKS.items():
        if kind in marks and marks[kind] > at_s:
            phases[name], at_s = marks[kind] - at_s, marks[kind]
    return phases


def marks_of(events: Sequence[Event], attempt: int) -> dict[str, float]:
    """When the last rank reached each mark of an attempt for the first time."""
    first: dict[str, dict[int | None, float]] = {}
    for event in events:
        if event.attempt == attempt and event.kind in MARKS and event.kind != "worker_exit":
            ranks = first.setdefault(event.kind, {})
            ranks[event.rank] = min(event.t_s, ranks.get(event.rank, event.t_s))
    return {kind: max(ranks.values()) for kind, ranks in first.items()}


def table(recoveries: Sequence[Phases]) -> list[str]:
    """Lines of a table: the median of every phase over the recoveries, with least and most, in milliseconds."""
    whole = [sum(phases.values()) for phases in recoveries]
    rows = [(name, [r[name] for r in recoveries if name in r]) for name in MARKS.values()]
    return [
        f"  {name:<30} {statistics.median(ms):8.1f} ms   [{min(ms):.1f}, {max(ms):.1f}] n={len(ms)}"
        for name, seconds in [*rows, ("all of it", whole)]
        if (ms := [1000 * s for s in seconds])
    ]


def by_rank(recoveries: Sequence[tuple[int, Phases]]) -> list[str]:
    """A table for each rank that was killed: losing rank 0 loses the group's store as well."""
    lines = []
    for rank in sorted({rank for rank, _ in recoveries}):
        lines += [f"recovery after the loss of rank {rank}:", *table([p for r, p in recoveries if r == rank])]
    return lines


def recoveries_of(
    events: Sequence[Event], stamps: Sequence[Stamp] = (), kills: Sequence[float] = ()
) -> list[tuple[int, Phases]]:
    """Every recovery of a run, with the rank that failed first; `kills` are the instants of the kills."""
    found = []
    for attempt in failed_attempts(events):
        failure = next(e for e in events if e.kind == "failure" and e.attempt == attempt)
        killed_s = max((t for t in kills if t <= failure.t_s), default=None)
        phases = phases_of(events, attempt, stamps, killed_s)
        if phases:
            found.append((failure.rank or 0, phases))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", help="id, unique start of an id, name, or `last`")
    with open_store() as store:
        events = store.events(store.run(parser.parse_args().run).id)
    print("\n".join(by_rank(recoveries_of(events)) or ["no recovery in this run"]))


if __name__ == "__main__":
    main()
