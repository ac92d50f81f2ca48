"""Who is served at twice the capacity: the top class inside its SLO, and a tenant beside one that floods."""

import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from bench.harness import Figure, Options, main, say
from bench.served import loads, serving

NAME = "classes"
WIDTH, HIDDEN, MAX_BATCH = 16, 2048, 8
SLO_MS = 50.0


def measure(options: Options) -> Mapping[str, Figure]:
    """Two streams against one real server, in pairs of runs: two classes, and two tenants of one class.

    The capacity is that of a closed loop just before. The top class asks for half of it and the class below for one
    and a half times; one tenant asks for 0.6 of it, more than its half, and the other floods with 1.4.
    """
    from tradewind.scale.capacity import find_capacity

    seconds = 4.0 if options.quick else 15.0
    attainment, kept, below = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        spec = {
            "model": str(package(folder / "model")),
            "max_batch": MAX_BATCH,
            "slo": {"latency_ms": SLO_MS},
        }
        bodies = [body(seed) for seed in range(32)]
        with serving(spec, folder) as url:
            url += "/v2/models/net/infer"
            for _ in range(options.repeats):
                capacity = find_capacity(
                    url, bodies, deadline_ms=SLO_MS, duration_s=min(seconds / 4, 2.0)
                ).per_s
                high, normal = loads(
                    url,
                    bodies,
                    [
                        stream(0.5 * capacity, seconds, {"x-priority": "high"}),
                        stream(1.5 * capacity, seconds, {"x-priority": "normal"}, seed=1),
                    ],
                )
                attainment.append(high.attainment)
                below.append(normal.attainment)
                say_stream("high", high)
                say_stream("normal", normal)
                quiet, flood = loads(
                    url,
                    bodies,
                    [
                        stream(0.6 * capacity, seconds, {"x-tenant": "quiet"}),
                        stream(1.4 * capacity, seconds, {"x-tenant": "flood"}, seed=1),
                    ],
                )
                fair_share = (quiet.in_deadline + flood.in_deadline) / 2
                kept.append(quiet.in_deadline / min(fair_share, quiet.offered))
                say_stream("quiet", quiet)
                say_stream("flood", flood)
    return {
        "top_class_attainment": Figure.of(attainment, "share"),
        "fair_share_kept": Figure.of(kept, "share"),
        "class_below_attainment": Figure.of(below, "share"),
    }


def stream(rate: float, seconds: float, headers: dict[str, str], seed: int = 0) -> dict[str, Any]:
    """One stream's arguments; the first second is not counted."""
    return {
        "rate": rate,
        "duration_s": seconds,
        "warmup_s": 1.0,
        "deadline_ms": SLO_MS,
        "headers": headers,
        "seed": seed,
        "connections": 1024,
    }


def say_stream(name: str, result: Any) -> None:
    say(
        f"{name:<8} offered {result.offered_per_s:7.1f}/s  in time {result.attainment:.4f}  "
        f"p99 {result.p99_ms:.1f} ms  generator's lag p99 {result.schedule_lag_p99_ms:.1f} ms  {result.statuses}"
    )


def body(seed: int) -> bytes:
    data = [round(0.01 * ((seed * 7 + i) % 100), 2) for i in range(WIDTH)]
    tensor = {"name": "input", "shape": [1, WIDTH], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def package(path: pathlib.Path) -> pathlib.Path:
    """A network of three layers whose batches of eight take several milliseconds."""
    import torch
    from torch.export import Dim, export

    from tradewind.models import write_package

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, 1),
    ).eval()  # fmt: skip
    program = export(net, (torch.zeros(3, WIDTH),), dynamic_shapes=({0: Dim("b", min=1)},))
    write_package(path, name="net", programs={"net": program})
    return path


if __name__ == "__main__":
    main(NAME, measure, packages=("torch",))
