"""A packaged ranker on a GPU: eager and as CUDA graphs, through pinned and pageable memory, and on the CPU.

For each batch size that a worker measures at its start (1, 2, 4, ... 64 users of 500 candidates, a table of 100,000 items x
64), the median time of a call that takes tensors of the CPU and returns such: what a batch costs a worker. All
contenders take turns. Before that each is compared with the program on the CPU.
"""

import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from bench.harness import Figure, Options, interleave, main, ratio, say
from bench.recommend_model import Rank
from tradewind.errors import SpecError
from tradewind.models import Package, open_package, write_package
from tradewind.models.export import export_ranker
from tradewind.serve.device import Backend
from tradewind.serve.gpus import find
from tradewind.serve.profile import batch_sizes
from tradewind.serve.runners import program_on

NAME = "gpu-serving"
DIMENSION, CANDIDATES, MAX_BATCH = 64, 500, 64
ENOUGH_S = 0.5
"""After which no more calls of one kind are made in a turn."""
NUM_ITEMS = 100_000
Inputs = tuple[torch.Tensor, ...]
WAYS = {
    "graphs": {"graphs": True, "pinned": True},
    "graphs_pageable": {"graphs": True, "pinned": False},
    "eager": {"graphs": False, "pinned": True},
    "eager_pageable": {"graphs": False, "pinned": False},
}


def measure(options: Options) -> Mapping[str, Figure]:
    """Time every way at every batch size, on the first GPU."""
    try:
        gpu = find()[0]
    except SpecError as error:
        raise SystemExit(f"{NAME}: not measured: {error}") from None
    from tradewind.serve.cuda import Cuda

    say(f"on cuda:0, {gpu.name}")
    sizes = [1, 8, MAX_BATCH] if options.quick else batch_sizes(MAX_BATCH)
    backends = {way: functools.partial(Cuda, "cuda:0", **settings) for way, settings in WAYS.items()}
    return compare(backends, sizes, options.repeats, calls=20 if options.quick else 200)


def compare(
    backends: Mapping[str, Callable[[], Backend]],
    sizes: Sequence[int],
    repeats: int,
    calls: int,
    num_items: int = NUM_ITEMS,
) -> Mapping[str, Figure]:
    """Return the microseconds of each way at each size, and how many times those of graphs the others take."""
    with tempfile.TemporaryDirectory() as folder:
        package = packaged(pathlib.Path(folder), num_items)
    programs = {way: program_on(backend(), package, "rank", MAX_BATCH) for way, backend in backends.items()}
    programs["cpu"] = program_on(None, package, "rank", MAX_BATCH)
    inputs = {rows: inputs_of(rows, num_items) for rows in sizes}
    off = max(difference(program, programs["cpu"], inputs) for program in programs.values())
    timed = interleave(
        {
            f"{way}_{rows}": functools.partial(microseconds, program, inputs[rows], calls)
            for rows in sizes
            for way, program in programs.items()
        },
        repeats,
    )
    found = {f"us_{name}": Figure.of(values, "us") for name, values in timed.items()}
    for rows in sizes:
        for way in programs:
            if way != "graphs":
                found[f"{way}_to_graphs_{rows}"] = ratio(timed[f"{way}_{rows}"], timed[f"graphs_{rows}"])
    return found | {"largest_difference": Figure.of([off], "score")}


def packaged(folder: pathlib.Path, num_items: int) -> Package:
    """Write the ranker of `make bench NAME=recommend` as a package, and open it."""
    torch.manual_seed(0)
    table = np.random.default_rng(0).standard_normal((num_items + 1, DIMENSION), np.float32)
    programs = {"rank": export_ranker(Rank(table).eval(), DIMENSION, 0)}
    nothing: Mapping[str, object] = {}
    write_package(
        folder / "ranker",
        name="ranker",
        task="generic",
        programs=programs,
        **dict.fromkeys(("tensors", "vocabularies", "metrics", "lineage", "config"), nothing),
    )
    return open_package(folder / "ranker")


def inputs_of(rows: int, num_items: int) -> Inputs:
    """Queries, candidates, their retrieval scores, and no features."""
    generator = torch.Generator().manual_seed(rows)
    candidates = torch.randint(1, num_items + 1, (rows, CANDIDATES), generator=generator)
    query = torch.randn(rows, DIMENSION, generator=generator)
    return query, candidates, torch.rand(rows, CANDIDATES, generator=generator), torch.zeros(rows, 0)


@torch.inference_mode()
def difference(
    program: Callable[..., torch.Tensor],
    truth: Callable[..., torch.Tensor],
    inputs: Mapping[int, Inputs],
) -> float:
    """Return the largest difference of a score, on the inputs of a warm-up and on others."""
    found = 0.0
    for given in inputs.values():
        for some in (given, tuple(tensor.flip(0) for tensor in given)):
            found = max(found, float((program(*some) - truth(*some)).abs().max()))
    return found


@torch.inference_mode()
def microseconds(program: Callable[..., torch.Tensor], inputs: Inputs, calls: int) -> float:
    """Return the median of at most so many calls, after three that are not counted."""
    taken: list[float] = []
    while len(taken) < calls + 3 and (len(taken) < 6 or sum(taken) < ENOUGH_S):
        start = time.perf_counter()
        program(*inputs)
        taken.append(time.perf_counter() - start)
    return 1e6 * statistics.median(taken[3:])


if __name__ == "__main__":
    main(NAME, measure, packages=["torch"])
