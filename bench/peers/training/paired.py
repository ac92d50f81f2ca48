"""The bare loop and the same loop with `train.Loop`, block by block in one pair of processes.

Each has a model under DDP of its own, so that what the loop hooks into its model is not in the bare blocks. Blocks
come in the order bare, loop, loop, bare, so that a drift weighs on both alike. A step is timed from the moment
its batch is asked for until the next one is: what the loop does between two steps is inside.
"""

import argparse
import contextlib
import cProfile
import io
import itertools
import json
import os
import pstats
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from bench.peers.training import task
from tradewind import train

OUT = "BENCH_OUT"
"""Environment variable: the folder to which every rank writes its blocks' step times."""


class Contender:
    """A model, its optimizer, and what hands out batches."""

    def __init__(self, samples: torch.Tensor, work: task.Work) -> None:
        self.model = DistributedDataParallel(task.make_model())
        self.optimizer = task.make_optimizer(self.model)
        self.batches = train.Batches(task.SAMPLES, task.BATCH, fetch=lambda rows: samples[rows])
        self._work = work

    def step(self, batch: torch.Tensor) -> None:
        self._work()
        self.optimizer.zero_grad()
        task.loss_of(self.model, batch).backward()
        self.optimizer.step()

    def bare(self) -> Iterator[torch.Tensor]:
        return iter(self.batches)

    def looped(self) -> Iterator[torch.Tensor]:
        return iter(train.Loop(model=self.model, optimizer=self.optimizer, data=self.batches))


def timed(batches: Iterator[torch.Tensor], step: Callable[[torch.Tensor], None], steps: int) -> list[float]:
    """Seconds of each of so many steps."""
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        step(next(batches))
        seconds.append(time.perf_counter() - started)
    return seconds


def profiled(looped: Contender, steps: int, out: Path) -> None:
    """What asking the loop for a batch costs: by the clock, in CPU time, and function by function."""
    batches, profile, spent = looped.looped(), cProfile.Profile(), []
    for number in range(2 * steps):
        watch = profile if number >= steps else contextlib.nullcontext()
        began_s, burnt_s = time.perf_counter(), time.process_time()
        with watch:
            batch = next(batches)
        spent.append((time.perf_counter() - began_s, time.process_time() - burnt_s))
        looped.step(batch)
    wall_s, cpu_s = zip(*spent[steps // 10 : steps], strict=True)
    text = io.StringIO()
    text.write("asking the loop for a batch, with what it does between two steps:\n")
    text.write(f"  by the clock {told(wall_s)}\n  CPU time     {told(cpu_s)}\n")
    text.write(f"the same {steps} times under cProfile, which makes it slower:\n")
    pstats.Stats(profile, stream=text).sort_stats("cumulative").print_stats(30)
    out.write_text(text.getvalue())


def told(seconds: Sequence[float]) -> str:
    """A distribution in a line."""
    sorted_us = sorted(1e6 * each for each in seconds)
    return ", ".join(
        f"{share:.0%}: {sorted_us[int(share * len(sorted_us))]:.0f} us" for share in (0.1, 0.5, 0.9)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, required=True, help="blocks of each kind; even")
    parser.add_argument("--steps", type=int, required=True, help="steps in a block")
    parser.add_argument("--profile", action="store_true", help="instead: where the loop's own time goes")
    args = parser.parse_args()
    with train.distributed() as me:
        samples, work = task.make_data(), task.Work(task.work_of_environment())
        bare, looped = Contender(samples, work), Contender(samples, work)
        out = Path(os.environ[OUT])
        if args.profile:
            profiled(looped, args.steps, out / f"profile{me.rank}")
            return
        kinds = {"bare": (bare.bare(), bare.step), "loop": (looped.looped(), looped.step)}
        order = itertools.islice(itertools.cycle(("bare", "loop", "loop", "bare")), 2 * args.blocks)
        blocks = [{"kind": kind, "seconds": timed(*kinds[kind], args.steps)} for kind in order]
        (out / f"rank{me.rank}.json").write_text(json.dumps(blocks))


if __name__ == "__main__":
    main()
