"""The settings at which Triton and mosec answer most requests in time, for each model: `python -m bench.peers.serving.search`.

Every combination is started, offered 1.5 and 2 times the ceiling for a few seconds each, and scored by the sum of
what it answers inside 100 ms. Triton: how long a request may wait in its queue before it is rejected, how long the
batcher waits for company, and how many may wait. Mosec: how many may wait, and how long its batcher waits.
`bench/results/serving-search.json` keeps every score; the best are what the benchmarks use. Combinations that it has
are not tried again; delete it to begin anew, on another machine for instance.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from bench.harness import RESULTS, machine, say
from bench.peers.serving import model
from bench.peers.serving.servers import serving

KEPT = RESULTS / "serving-search.json"
SECONDS = 2.0
GRID = {
    "triton": {
        "timeout_us": (10_000, 20_000, 30_000, 40_000, 50_000, 60_000),
        "delay_us": (0, 2_000),
        "queue": (0, 64, 128),
    },
    "mosec": {"capacity": (16, 32, 64, 96, 128), "wait_ms": (1, 5, 10)},
}


def best(server: str, name: str) -> dict[str, Any]:
    """The settings kept for a server and a model."""
    tried: list[dict[str, Any]] = json.loads(KEPT.read_text())["tried"]
    mine = [one for one in tried if (one["server"], one["model"]) == (server, name)]
    settings: dict[str, Any] = max(mine, key=lambda one: one["score"])["settings"]
    return settings


def combinations(server: str) -> Iterator[dict[str, int]]:
    """Every combination of a server's settings."""
    grid = GRID[server]
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def main() -> None:
    """Try what was not tried before and keep the scores."""
    from bench.overload import MODELS, offer

    tried: list[dict[str, Any]] = json.loads(KEPT.read_text())["tried"] if KEPT.exists() else []
    known = [(one["server"], one["model"], one["settings"]) for one in tried]
    for name, server in itertools.product(MODELS, GRID):
        ceiling = model.ceiling(name)
        for settings in combinations(server):
            if (server, name, settings) in known:
                continue
            with serving(server, name, settings) as endpoint:
                found = [offer(endpoint, multiple * ceiling, SECONDS, seed=0) for multiple in (1.5, 2.0)]
            score = sum(result.goodput_per_s for result in found)
            tried.append({"server": server, "model": name, "settings": settings, "score": round(score, 1)})
            say(f"{name:<7} {server:<7} {settings}  {score:.0f}")
    KEPT.write_text(json.dumps({"machine": machine(), "tried": tried}, indent=1) + "\n")


if __name__ == "__main__":
    main()
