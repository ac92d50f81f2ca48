"""What every benchmark shares: contenders in turn, median and spread, one RESULT line.

A benchmark is a module with `NAME` and `measure(options) -> dict[str, Figure]`, ended by
`harness.main(NAME, measure)`. `--quick` is the smoke form: it shows that the benchmark runs,
its figures are no claim. `--keep` writes the result to `bench/results/NAME.json`.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tradewind.serve import extensions

RESULTS = pathlib.Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A median with its spread: the smallest and largest of `n` repeats, or a stated interval."""

    value: float
    unit: str
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float], unit: str) -> "Figure":
        """Median, minimum and maximum of `values`."""
        return cls(statistics.median(values), unit, min(values), max(values), len(values))


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asked for; `extra` holds the flags a benchmark added itself."""

    quick: bool
    repeats: int
    keep: bool
    extra: argparse.Namespace


def interleave(
    contenders: Mapping[str, Callable[[], float]],
    repeats: int,
    warmup: int = 1,
    shuffled: random.Random | None = None,
) -> dict[str, list[float]]:
    """Run every contender in turn, `repeats` times after `warmup` rounds that are not counted.

    With `shuffled` each round has an order of its own: what one leaves behind is not always the same one's to bear.
    """
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for round_index in range(warmup + repeats):
        names = [*contenders]
        if shuffled is not None:
            shuffled.shuffle(names)
        for name in names:
            value = contenders[name]()
            if round_index >= warmup:
                measured[name].append(value)
                say(f"round {round_index - warmup + 1}/{repeats}  {name:<28} {value:.6g}")
    return measured


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Ours to theirs, pair by pair: the pairs ran next to each other, so drift cancels."""
    return Figure.of([a / b for a, b in zip(ours, theirs, strict=True)], "ratio")


def wall_seconds(command: Sequence[str]) -> float:
    """Wall time of one command, its output thrown away; raises if it fails."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def machine() -> dict[str, Any]:
    """The machine as a reader would need it to judge a figure."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_1m": round(os.getloadavg()[0], 2),
    } | gpus()


def gpus() -> dict[str, str]:
    """The GPUs and their driver, where the driver's own tool says so; nothing without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    asked = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    return {"gpu": "; ".join(done.stdout.splitlines())} if done.returncode == 0 else {}


def cpu_model() -> str:
    """The processor's own name for itself."""
    with open("/proc/cpuinfo") as info:
        names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of the installed `packages`."""
    extensions.check()
    found = {
        "python": platform.python_version(),
        "front": "compiled" if extensions.is_compiled() else "sources",
    }
    for package in ("tradewind", *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def say(line: str) -> None:
    """Progress, on standard error: standard output is the result's."""
    print(line, file=sys.stderr, flush=True)


def main(
    name: str,
    measure: Callable[[Options], Mapping[str, Figure]],
    *,
    packages: Sequence[str] = (),
    add_flags: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Parse the shared flags, measure, print a table and the RESULT line."""
    parser = argparse.ArgumentParser(prog=f"make bench NAME={name}", description=measure.__doc__)
    parser.add_argument("--quick", action="store_true", help="smoke form: shows that it runs; no claim")
    parser.add_argument(
        "--repeats", type=int, default=0, help="repeats of each contender (default 5; quick 1)"
    )
    parser.add_argument("--keep", action="store_true", help=f"write bench/results/{name}.json")
    if add_flags:
        add_flags(parser)
    flags = parser.parse_args()
    # So that what it has started ends with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    repeats = flags.repeats or (1 if flags.quick else 5)
    figures = measure(Options(quick=flags.quick, repeats=repeats, keep=flags.keep, extra=flags))
    result = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": flags.quick,
        "command": f"make bench NAME={name}" + (f' ARGS="{" ".join(sys.argv[1:])}"' if sys.argv[1:] else ""),
        "machine": machine(),
        "versions": versions(*packages),
        "figures": {key: dataclasses.asdict(figure) for key, figure in figures.items()},
    }
    if flags.keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    for key, figure in figures.items():
        print(
            f"{key:<28} {figure.value:>12.4g} {figure.unit:<8} [{figure.low:.4g}, {figure.high:.4g}] n={figure.n}"
        )
    print("RESULT " + json.dumps(result))
