"""Who is served at twice the capacity: the top class inside its SLO, and a tenant beside one that floods.

Models, SLO and server are those of `overload` (`bench/peers/serving/model.py`): one that holds the GIL and a ranker in
torch, 100 ms, `tradewind serve MODEL --slo 100ms`. `--models light` is one so quick that the front process is what
limits it: there a refusal costs half of what an answer does, and twice the capacity cannot be turned away beside the
half of it that is to be answered; what is offered is then also more than the load's own process can send.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from bench.harness import Figure, Options, main, say
from bench.peers.serving.servers import Endpoint, serving
from bench.served import loads

NAME = "classes"
MODELS = ("spin", "ranker")
DEADLINE_MS = 100.0


def measure(options: Options) -> Mapping[str, Figure]:
    """Two streams against one real server, in pairs of runs: two classes, and two tenants of one class.

    The capacity is that of a closed loop just before. The top class asks for half of it and the class below for one
    and a half times; one tenant asks for 0.6 of it, more than its half, and the other floods with 1.4.
    """
    chosen = options.extra.models.split(",") if options.extra.models else MODELS
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(options.repeats):
        for name in chosen:
            with serving("tradewind", name, {"deadline_ms": DEADLINE_MS}) as endpoint:
                for key, value in one_round(name, endpoint, 4.0 if options.quick else 10.0).items():
                    found[key][name].append(value)
    result = {}
    for key, by_model in found.items():
        figures = {name: Figure.of(values, "share") for name, values in by_model.items()}
        result[key] = min(figures.values(), key=lambda figure: figure.value)
        result |= {f"{key}_{name}": figure for name, figure in figures.items()}
    return result


def one_round(name: str, endpoint: Endpoint, seconds: float) -> dict[str, float]:
    """What became of both pairs of streams."""
    from tradewind.scale.capacity import find_capacity

    capacity = find_capacity(
        endpoint.url,
        [endpoint.body],
        deadline_ms=DEADLINE_MS,
        duration_s=min(seconds / 4, 2.0),
        headers=endpoint.headers,
    ).per_s

    def stream(multiple: float, headers: dict[str, str], seed: int) -> dict[str, Any]:
        return {
            "rate": multiple * capacity,
            "duration_s": seconds,
            "warmup_s": 1.0,
            "deadline_ms": DEADLINE_MS,
            "headers": {**endpoint.headers, **headers},
            "seed": seed,
            "connections": 1024,
        }

    high, normal = loads(
        endpoint.url,
        [endpoint.body],
        [stream(0.5, {"x-priority": "high"}, 0), stream(1.5, {"x-priority": "normal"}, 1)],
    )
    quiet, flood = loads(
        endpoint.url,
        [endpoint.body],
        [stream(0.6, {"x-tenant": "quiet"}, 0), stream(1.4, {"x-tenant": "flood"}, 1)],
    )
    for who, result in (("high", high), ("normal", normal), ("quiet", quiet), ("flood", flood)):
        say(
            f"{name:<7} {who:<7} offered {result.offered_per_s:7.1f}/s  in time {result.attainment:.4f}  "
            f"p99 {result.p99_ms:.1f} ms  generator's lag p99 {result.schedule_lag_p99_ms:.1f} ms  {result.statuses}"
        )
    fair_share = (quiet.in_deadline + flood.in_deadline) / 2
    return {
        "top_class_attainment": high.attainment,
        "fair_share_kept": quiet.in_deadline / min(fair_share, quiet.offered),
        "class_below_attainment": normal.attainment,
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Which part to measure."""
    parser.add_argument("--models", default="", help=f"these, not {','.join(MODELS)}; light too")


if __name__ == "__main__":
    main(NAME, measure, packages=("torch", "uvloop", "httptools"), add_flags=add_flags)
