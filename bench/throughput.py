"""Requests a second at a p99 within 20 ms, and what each server adds to one request: ours and five peers.

A small ranker in torch (`light` of `bench/peers/serving/model.py`: 64 candidates, 128 features), so that what
surrounds the model is most of a request; one process runs it in every server. A closed loop keeps 1, 2, 4, ... 64
connections busy for a second each; a server's throughput is the best of the levels whose p99 is within 20 ms. Each
round starts every server afresh, in an order of its own (seeded): what one leaves behind is not always to be another's.
Bodies are what each decodes fastest: binary tensors of the Open Inference Protocol (ours, Triton), raw float32 (mosec,
Ray Serve), base64 in JSON (LitServe, BentoML).

Settings: batches of at most 64 and no waiting for company, which a closed loop does not reward; mosec's least wait is
1 ms; LitServe with its fast queue; BentoML told of the 20 ms. `overhead_p50_ms_*` is the median latency with one
connection less that of the model called directly.
"""

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from bench.harness import Figure, Options, main, ratio, say
from bench.peers.serving import model
from bench.peers.serving.servers import serving
from tradewind.scale.capacity import Level, find_capacity

NAME = "throughput"
MODEL = "light"
P99_MS = 20.0
SETTINGS: dict[str, Mapping[str, Any]] = {
    "tradewind": {"deadline_ms": P99_MS},
    "triton": {},
    "mosec": {"wait_ms": 1},
    "litserve": {"fast_queue": True},
    "bentoml": {"latency_ms": int(P99_MS)},
    "ray": {},
}


def measure(options: Options) -> Mapping[str, Figure]:
    """Find every server's throughput in turn, round by round."""
    names = options.extra.only.split(",") if options.extra.only else [*SETTINGS]
    per_s, overhead_ms = defaultdict(list), defaultdict(list)
    direct_ms = alone_ms()
    for number in range(options.repeats):
        for name in random.Random(number).sample(names, len(names)):
            with serving(name, MODEL, SETTINGS[name]) as endpoint:
                seconds = 0.3 if options.quick else 1.0
                found = find_capacity(
                    endpoint.url,
                    [endpoint.body],
                    deadline_ms=1e3,
                    duration_s=seconds,
                    headers=endpoint.headers,
                )
            best = fastest(found.levels)
            per_s[name].append(best.answered_per_s)
            overhead_ms[name].append(found.levels[0].p50_ms - direct_ms)
            say(
                f"round {number + 1}  {name:<10} {best.answered_per_s:6.0f}/s with {best.concurrency} connections, "
                f"p99 {best.p99_ms:.1f} ms; one adds {overhead_ms[name][-1]:.2f} ms"
            )
    figures = {
        f"ratio_{name}": ratio(per_s["tradewind"], per_s[name]) for name in names if name != "tradewind"
    }
    figures |= {"overhead_p50_ms": Figure.of(overhead_ms["tradewind"], "ms")}
    figures |= {f"overhead_p50_ms_{name}": Figure.of(overhead_ms[name], "ms") for name in names}
    figures |= {"direct_p50_ms": Figure(direct_ms, "ms", direct_ms, direct_ms, 1)}
    return figures | {f"per_s_{name}": Figure.of(per_s[name], "1/s") for name in names}


def fastest(levels: tuple[Level, ...]) -> Level:
    """The level that answered most within the p99; the first where none did."""
    inside = [level for level in levels if level.p99_ms <= P99_MS and not level.failed]
    return max(inside, key=lambda level: level.answered_per_s, default=levels[0])


def alone_ms() -> float:
    """The median of calling the model directly with one request."""
    run, row = model.model(MODEL), model.row(MODEL)
    seconds = []
    for _ in range(500):
        start = time.perf_counter()
        run(row)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e3


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Which servers."""
    parser.add_argument("--only", default="", help=f"only these of {','.join(SETTINGS)}; ours must be there")


if __name__ == "__main__":
    main(NAME, measure, packages=("torch", "uvloop", "httptools"), add_flags=add_flags)
