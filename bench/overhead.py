"""What `train.Loop` under `tradewind run` adds to a step of 50 ms: journal, ledger, watching agent, memory tier.

Two workers train the model of `bench/recovery.py` by DDP, in blocks of bare steps and of steps with `train.Loop`, in
the same pair of processes (`bench/peers/training/paired.py`). A block's first third is not counted: the agent reads
the journal up to half a second late. `step_overhead` is the median over pairs of neighbouring blocks of (median step
with the loop / median bare step - 1), for each repeat, which is a run of its own. `step_overhead_mean` is the same of
means: what comes now and then (a checkpoint every 100 steps, the ledger every 5 s) is in it, and so is all noise.

`--profile` says instead where the time goes, function by function.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.harness import Figure, Options, main, say
from bench.peers.training import task_environment
from bench.peers.training.contenders import HERE
from bench.peers.training.task_environment import calibrated

NAME = "overhead"
OUT = "BENCH_OUT"
Block = tuple[str, list[float]]


def measure(options: Options) -> Mapping[str, Figure]:
    """Step time with the loop against the bare loop's, paired block by block."""
    blocks, steps = (2, 15) if options.quick else (8, 60)
    work = calibrated()
    if options.extra.profile:
        say(run(work, "--blocks", "2", "--steps", "200", "--profile")["profile0"])
        return {}
    repeats = []
    for number in range(options.repeats):
        written = run(work, "--blocks", str(blocks), "--steps", str(steps))
        repeats.append([(block["kind"], block["seconds"]) for block in json.loads(written["rank0.json"])])
        say(f"round {number + 1}/{options.repeats}  {overhead(repeats[-1], statistics.median):+.4f}")
    bare = [1000 * statistics.median(seconds) for r in repeats for kind, seconds in r if kind == "bare"]
    return {
        "step_overhead": Figure.of([overhead(r, statistics.median) for r in repeats], "share"),
        "step_overhead_mean": Figure.of([overhead(r, statistics.fmean) for r in repeats], "share"),
        "step_bare": Figure.of(bare, "ms"),
    }


def overhead(blocks: Sequence[Block], typical: Callable[[Sequence[float]], float]) -> float:
    """The median over neighbouring blocks of both kinds, in whichever order, of what the loop adds."""
    shares = []
    for pair in zip(blocks[::2], blocks[1::2], strict=True):
        counted = {kind: typical(seconds[len(seconds) // 3 :]) for kind, seconds in pair}
        shares.append(counted["loop"] / counted["bare"] - 1)
    return statistics.median(shares)


def run(work: int, *args: str) -> dict[str, str]:
    """One `tradewind run` of the paired training; the files that its workers wrote."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        folder = Path(name)
        (folder / "out").mkdir()
        environment = task_environment.of(folder, work)
        environment |= {OUT: str(folder / "out"), "TRADEWIND_HOME": str(folder / "home")}
        program = str(Path(sys.executable).with_name("tradewind"))
        command = [program, "run", str(HERE / "paired.py"), "--workers", "2", "--output", "json", "--", *args]
        subprocess.run(
            command,
            check=True,
            cwd=task_environment.ROOT,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
        )
        return {file.name: file.read_text() for file in (folder / "out").iterdir()}


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", action="store_true", help="only say where the loop's own time goes")


if __name__ == "__main__":
    main(NAME, measure, packages=("torch",), add_flags=add_flags)
