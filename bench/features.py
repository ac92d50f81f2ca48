"""What fetching a user costs: `/v1/recommend` with the history in the request, from Redis, and from a file.

A catalogue of 5,000 items, of which 100 are retrieved and ranked, and 2,000 users with 50 events each; a real Redis on
the same machine. The same requests, in which the user's id stands for the history; a server of its own for each. In
turn, with 16 connections that are always busy and with one: requests a second, p50 and p99. Budgets are of a second,
so that nothing is degraded and no fetch is late; `hit_share_*` says so. Redis and the load take their share of the
cores, of which there should be more than two.
"""

import contextlib
import json
import pathlib
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from bench.harness import Figure, Options, main, ratio, say
from bench.recommend import World
from bench.served import serving
from tests.services.redis import redis_server
from tradewind.scale.capacity import Level, find_capacity
from tradewind.serve.features import encode

NAME = "features"
NUM_ITEMS, NUM_USERS, CANDIDATES, K = 5_000, 2_000, 100, 10
BUDGET_MS = 1000.0
BUSY = 16


def measure(options: Options) -> Mapping[str, Figure]:
    """Requests a second and latency of each way in turn, beside that of histories in the request."""
    seconds = 0.5 if options.quick else 3.0
    per_s, p50, p99, alone = (defaultdict[str, list[float]](list) for _ in range(4))
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        urls, bodies = _servers(pathlib.Path(name), stack)
        for number in range(options.repeats):
            for way, url in urls.items():
                busy, single = (_level(url, bodies[way], count, seconds) for count in (BUSY, 1))
                per_s[way].append(busy.answered_per_s)
                p50[way].append(busy.p50_ms)
                p99[way].append(busy.p99_ms)
                alone[way].append(single.p50_ms)
                say(
                    f"round {number + 1}/{options.repeats}  {way:<9} {busy.answered_per_s:6.0f}/s  "
                    f"p50 {busy.p50_ms:.2f} ms  p99 {busy.p99_ms:.2f} ms  alone p50 {single.p50_ms:.2f} ms"
                )
        hits = {way: hit_share(url) for way, url in urls.items() if way != "request"}
    figures = {f"ratio_{way}": ratio(per_s[way], per_s["request"]) for way in ("redis", "embedded")}
    figures |= {f"hit_share_{way}": Figure(share, "share", share, share, 1) for way, share in hits.items()}
    for what, unit, measured in (
        ("per_s", "1/s", per_s),
        ("p50", "ms", p50),
        ("p99", "ms", p99),
        ("alone", "ms", alone),
    ):
        figures |= {f"{what}_{way}": Figure.of(values, unit) for way, values in measured.items()}
    return figures


def _servers(
    folder: pathlib.Path, stack: contextlib.ExitStack
) -> tuple[dict[str, str], dict[str, list[bytes]]]:
    """Start a server for each way; return their URLs and the bodies to send."""
    world = World(NUM_ITEMS, learners=0)
    model = str(world.write(folder / "model"))
    users = {f"u{n}": [f"i{item}" for item in world.history(n)] for n in range(NUM_USERS)}
    redis = stack.enter_context(redis_server())
    file = folder / "users.jsonl"
    with file.open("w") as lines:
        for user, history in users.items():
            redis.put(f"user:{user}", encode(history))
            lines.write(json.dumps({"id": user, "history": history}) + "\n")
    features: dict[str, dict[str, Any]] = {
        "request": {},
        "redis": {"features": {"store": redis.url, "max_ms": BUDGET_MS / 2}},
        "embedded": {"features": {"store": str(file)}},
    }
    urls = {way: stack.enter_context(_serving(model, folder / way, more)) for way, more in features.items()}
    carried = [json.dumps({"history": history, "k": K}).encode() for history in users.values()]
    named = [json.dumps({"user_id": user, "k": K}).encode() for user in users]
    return urls, {way: carried if way == "request" else named for way in urls}


@contextlib.contextmanager
def _serving(model: str, folder: pathlib.Path, more: Mapping[str, Any]) -> Iterator[str]:
    folder.mkdir()
    spec = {"model": model, "candidates": CANDIDATES, "slo": {"latency_ms": BUDGET_MS}}
    with serving({**spec, **more}, folder) as url:
        yield url


def _level(url: str, bodies: list[bytes], connections: int, seconds: float) -> Level:
    found = find_capacity(
        url + "/v1/recommend",
        bodies,
        deadline_ms=BUDGET_MS,
        duration_s=seconds,
        concurrencies=(connections,),
    )
    return found.levels[0]


def hit_share(url: str) -> float:
    """The share of a server's fetches that found their user."""
    with urllib.request.urlopen(url + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    counts = dict(
        line.rsplit(" ", 1) for line in lines if line.startswith("tradewind_features_fetches_total{")
    )
    hit = float(counts['tradewind_features_fetches_total{outcome="hit"}'])
    return hit / sum(map(float, counts.values()))


if __name__ == "__main__":
    main(NAME, measure, packages=("torch", "redis"))
