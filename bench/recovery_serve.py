"""How soon a server is steady again: after a step of the load, and after the death of a model worker.

The GIL-holding model of `bench/peers/serving/model.py`, a promise of 100 ms. A step: two seconds at 0.7 of the ceiling,
then two at 1.4 or 3 times it, open loop; `settle_ms_*` is the time from the step to the first 250 ms, two in a row,
with 95% of the goodput that the second half of the step has (`tradewind.scale.settle`). A death: `kill -9` of the
process that runs the model, in the middle of six seconds at 0.7; `lost` counts requests that got no answer, or an
error, though a spare worker was there to try them again inside their deadlines; `p99_back_s` is how long after the
kill a window of 100 ms was the last whose slowest answer took more than the promise.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from bench.harness import Figure, Options, main, say
from bench.peers.serving import model
from bench.peers.serving.servers import Endpoint, serving
from tradewind.scale.load import execute
from tradewind.scale.outcome import LoadPlan, LoadResult

NAME = "recovery-serve"
DEADLINE_MS = 100.0
BASE = 0.7
STEPS = {"14": 1.4, "30": 3.0}
SECONDS = 6.0
KILL_S = 3.0


def measure(options: Options) -> Mapping[str, Figure]:
    """Step the load and kill a worker, round by round, on one server after the other."""
    settle_ms: dict[str, list[float]] = {key: [] for key in STEPS}
    lost, back_s = [], []
    for number in range(options.repeats):
        with serving("tradewind", "spin", {"deadline_ms": DEADLINE_MS}) as endpoint:
            for key, multiple in STEPS.items():
                found = offer(endpoint, number, multiple / BASE)
                peak = next(phase for phase in found.phases if phase.name == "peak")
                settle_ms[key].append((SECONDS if peak.settle_s is None else peak.settle_s) * 1e3)
                say(
                    f"round {number + 1}  to {multiple:g}x: {settle_ms[key][-1]:.0f} ms, {peak.goodput_per_s:.0f}/s"
                )
            found = killed(endpoint, number)
            lost.append(float(found.errors + found.statuses.get("503", 0)))
            back_s.append(late_for_s(found))
            say(
                f"round {number + 1}  worker killed: {lost[-1]:.0f} lost, late answers for {back_s[-1]:.2f} s"
            )
    return {f"settle_ms_{key}": Figure.of(values, "ms") for key, values in settle_ms.items()} | {
        "lost": Figure.of(lost, "requests"),
        "p99_back_s": Figure.of(back_s, "s"),
    }


def offer(endpoint: Endpoint, seed: int, peak: float) -> LoadResult:
    """What came of a load that is `peak` times as high in its middle third."""
    plan = LoadPlan(
        url=endpoint.url,
        rate=BASE * model.ceiling("spin"),
        duration_s=SECONDS,
        deadline_ms=DEADLINE_MS,
        headers=endpoint.headers,
        seed=seed,
        warmup_s=1.0,
        connections=2048,
        shape="step",
        peak=peak,
    )
    return execute(plan, [endpoint.body])


def killed(endpoint: Endpoint, seed: int) -> LoadResult:
    """A steady load during which the busiest worker is killed."""
    timer = threading.Timer(1.0 + KILL_S, lambda: os.kill(busiest(endpoint.process.pid), signal.SIGKILL))
    timer.start()
    try:
        return offer(endpoint, seed, peak=1.0)
    finally:
        timer.join()


def busiest(server: int) -> int:
    """The child of the server that computes: the one that used most of a core in the last moment."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    before = {child: ticks(child) for child in children}
    time.sleep(0.2)
    return int(max(children, key=lambda child: ticks(child) - before[child]))


def ticks(pid: str) -> int:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def late_for_s(found: LoadResult) -> float:
    """From the kill to the end of the last window, of those after it, whose p99 was over the promise."""
    late = [one.end_s for one in found.timeline if one.end_s > KILL_S and one.p99_ms > DEADLINE_MS]
    return max(max(late, default=KILL_S) - KILL_S - 0.2, 0.0)


if __name__ == "__main__":
    main(NAME, measure, packages=("uvloop", "httptools"))
