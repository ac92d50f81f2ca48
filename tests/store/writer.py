"""A process that writes to a store and prints one line for each thing the store has acknowledged."""

import itertools
import sys

from tradewind.store import Event, Metric, open_store

BATCH = 7


def main(url: str, writer: str, rounds: int) -> None:
    """Write `rounds` rounds of everything, or without end when `rounds` is 0."""
    store = open_store(url)
    for n in itertools.count() if rounds == 0 else range(rounds):
        data = {"writer": writer, "n": n, "filler": "x" * 300}
        store.add_events(
            Event(run="shared", attempt=0, rank=part, t_s=float(n), kind=writer, data=data)
            for part in range(BATCH)
        )
        print("events", n, flush=True)
        version = store.add_model_version("model", f"{writer}-{n}", "/nowhere", data).version
        print("version", version, flush=True)
        store.set_alias("model", "production", version, f"{writer} {n}", writer)
        print("alias", version, flush=True)
        store.add_metrics(
            [Metric(run="shared", attempt=0, rank=0, step=n, name=writer, value=n / 7, t_s=1.0)]
        )
        store.update_run(writer, exit_code=n)
        print("run", n, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
