"""A program served eagerly, compiled here (AOTInductor, weights as inputs), and by `torch.compile`: time of one batch.

One thread; contenders run in turn for each batch size, the same inputs for all. `light` and `ranker` score 64 candidates
by a perceptron over 128 features (one layer of 128; 1024 and 640 wide: the models of the other serving benchmarks);
`recommend` is the recommender's ranker over 200 candidates of 20,000 items. Ours is what a worker calls, its checks of
every size and its weights included; eager is the packaged program, and `torch.compile` gets the module that was
packaged, with dynamic sizes, in its default mode (`--autotune`: and in max-autotune-no-cudagraphs, where it tries
kernels for minutes). Every contender's outputs are compared with the module's. The figures are microseconds a batch, and
ours as a share of the others, pair by pair; the seconds that compiling took are told on the way.
"""

import argparse
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from bench.harness import Figure, Options, interleave, main, ratio, say
from bench.peers.serving.model import network
from bench.recommend_model import Rank
from tradewind.models import Package, building, open_package, write_package
from tradewind.models.artefacts import Artefacts
from tradewind.models.export import MOST, export_dynamic, export_ranker
from tradewind.serve.programs import Programs

NAME = "compiled"
ITEMS, DIMENSION, CANDIDATES = 20_000, 64, 200
SIZES, SIZES_QUICK = (1, 4, 16, 64), (1, 16)
LASTS_S = 0.05
Inputs = tuple[torch.Tensor, ...]
Run = Callable[[Inputs], torch.Tensor]


def modules(quick: bool) -> dict[str, torch.nn.Module]:
    """What is packaged, by name."""
    names = ("light",) if quick else ("light", "ranker")
    table = np.random.default_rng(0).standard_normal((ITEMS + 1, DIMENSION), dtype=np.float32)
    torch.manual_seed(0)
    return {name: network(name) for name in names} | {"recommend": Rank(table).eval()}


def inputs(name: str, rows: int) -> Inputs:
    """A batch for a model."""
    if name != "recommend":
        return (torch.randn(rows, 64, 128),)
    candidates = torch.randint(1, ITEMS + 1, (rows, CANDIDATES))
    return torch.randn(rows, DIMENSION), candidates, torch.randn(rows, CANDIDATES), torch.zeros(rows, 1)


def export(name: str, module: torch.nn.Module) -> ExportedProgram:
    if name == "recommend":
        return export_ranker(module, DIMENSION, 1)
    return export_dynamic(module, inputs(name, 3), ({0: Dim("rows", min=1, max=MOST)},))


def packaged(folder: pathlib.Path, found: Mapping[str, torch.nn.Module]) -> Package:
    """The models as a package, compiled into a cache of this benchmark's own."""
    write_package(
        folder / "package", name=NAME, task="generic", programs={n: export(n, m) for n, m in found.items()},
        tensors={}, vocabularies={}, metrics={}, lineage={}, config={},
    )  # fmt: skip
    environment = building.environment() | {"TRADEWIND_HOME": str(folder)}
    started = time.perf_counter()
    command = building.command(str(folder / "package"))
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    say(f"compiled in {time.perf_counter() - started:.1f} s: {done.stdout.strip()}")
    return open_package(folder / "package")


def contenders(package: Package, name: str, module: torch.nn.Module, options: Options) -> dict[str, Run]:
    """Each by its name: what takes a batch and gives its scores."""
    ours = Programs(package, Artefacts(package.path.parent / "compiled"), (name,))(name)
    assert ours.compiled is not None, ours.execution.why
    eager = package.program(name)
    modes: dict[str, dict[str, Any]] = {"torch_compile": {}}
    if options.extra.autotune:
        modes["torch_autotune"] = {"mode": "max-autotune-no-cudagraphs"}
    peers = {peer: torch.compile(module, dynamic=True, **how) for peer, how in modes.items()}
    return {
        "compiled": lambda batch: ours(*batch),
        "eager": lambda batch: eager(*batch),
        **{peer: (lambda batch, run=run: run(*batch)) for peer, run in peers.items()},
    }


def microseconds(run: Run, batch: Inputs) -> float:
    """Of one call, over as many as last a while."""
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < LASTS_S:
        run(batch)
        calls += 1
    return spent / calls * 1e6


def measure(options: Options) -> dict[str, Figure]:
    """Time a batch of each model and size, eagerly, compiled here and by torch.compile."""
    figures: dict[str, Figure] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{place}/peers"
        found = modules(options.quick)
        package = packaged(pathlib.Path(place), found)
        with torch.inference_mode():
            for name, module in found.items():
                runs = contenders(package, name, module, options)
                for rows in SIZES_QUICK if options.quick else SIZES:
                    figures |= _of(name, module, rows, runs, options.repeats)
    return figures


def _of(
    name: str, module: torch.nn.Module, rows: int, runs: Mapping[str, Run], repeats: int
) -> dict[str, Figure]:
    batch = inputs(name, rows)
    for contender, run in runs.items():
        started = time.perf_counter()
        torch.testing.assert_close(run(batch), module(*batch), rtol=1e-3, atol=1e-4)
        say(f"{name} {rows} {contender}: first call {time.perf_counter() - started:.2f} s")
    timed = {c: (lambda run=run: microseconds(run, batch)) for c, run in runs.items()}
    found = interleave(timed, repeats)
    figures = {f"{name}_{rows}_{c}": Figure.of(values, "us") for c, values in found.items()}
    for other in found.keys() - {"compiled"}:
        figures[f"{name}_{rows}_to_{other}"] = ratio(found["compiled"], found[other])
    return dict(sorted(figures.items()))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--autotune", action="store_true", help="also torch.compile in its max-autotune mode")


if __name__ == "__main__":
    main(NAME, measure, packages=("torch",), add_flags=add_flags)
