"""Filtered retrieval on a million synthetic vectors, against FAISS HNSW with a selector, usearch and LanceDB."""

import argparse
import contextlib
import pathlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import faiss
import numpy as np
import torch

from bench.harness import Figure, Options, interleave, main, say
from bench.peers.retrieval import Peer
from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.auto import AutoIndex
from tradewind.retrieve.filters import Filter, Range
from tradewind.retrieve.measure import recall_of
from tradewind.retrieve.scan import best_rows

NAME = "retrieval"
K, DIMENSION, TARGET = 100, 64, 0.99
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
EFFORTS = {
    "faiss_tuned": (100, 128, 192, 256, 384, 512, 768, 1024),
    "faiss": (100, 128, 192, 256, 384, 512, 768, 1024),
    "usearch": (100, 128, 192, 256, 384, 512, 768, 1024),
    "lancedb": (4, 8, 16, 32, 64, 128, 256),
}
TUNING_QUERIES = 100
WARM_QUERIES = 100
"""Before each measurement, drawn apart: what ran before has taken the caches, and a server that answers has them."""

T = TypeVar("T")
Ask = Callable[[float, int, int, int], tuple[np.ndarray, np.ndarray]]
"""(share, effort, first query, number of queries) -> (seconds of each, positions [Q, K])."""


class World(NamedTuple):
    """Synthetic: a thousand items a cluster, unit vectors; `u` is uniform, and the filter is `u < share`.

    `queries` are those that are measured, whose `truth` is known, and then WARM_QUERIES more.
    """

    table: np.ndarray
    queries: np.ndarray
    u: np.ndarray
    truth: dict[float, np.ndarray]


class Note(NamedTuple):
    """Of one contender at one share, a value a round: recall, the median, and p99 of the queries that warmed it."""

    recalls: list[float]
    p50_ms: list[float]
    p99_cold_ms: list[float]


def measure(options: Options) -> Mapping[str, Figure]:
    """p99 of single queries on one thread, and recall@100, by share of allowed items; then recall through churn."""
    count, num_queries = (20_000, 100) if options.quick else (1_000_000, 500)
    count = options.extra.items or count
    folder = pathlib.Path(tempfile.gettempdir()) / "tradewind-bench" / f"retrieval-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    world = make(count, num_queries, folder)
    index = timed("tradewind", lambda: AutoIndex(world.table, attributes=Attributes({"u": world.u})))
    torch.set_num_threads(1)
    graph = timed("faiss", lambda: hnsw(world.table, folder))
    faiss.omp_set_num_threads(1)
    with peers(folder) as asks:
        asks = {
            "tradewind": ours(index, world),
            "faiss": theirs(graph, world),
            "faiss_tuned": theirs(graph, world),
            **asks,
        }
        figures = searches(asks, world, options.repeats, num_queries)
    return figures | first_filters(index, world) | churn(index, world)


def make(count: int, num_queries: int, folder: pathlib.Path) -> World:
    """The same vectors every time; kept in `folder` for the peers."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((max(20, count // 1000), DIMENSION), dtype=np.float32)
    table, queries = (drawn(centres, size, generator) for size in (count, num_queries))
    u = generator.random(count)
    warming = drawn(centres, WARM_QUERIES, np.random.default_rng(2))
    for name, array in (("table", table), ("queries", np.concatenate([queries, warming])), ("u", u)):
        np.save(folder / f"{name}.npy", array)
    truth = {}
    for share in SHARES:
        held = np.flatnonzero(u < share)
        truth[share] = held[best_rows(torch.from_numpy(table[held]), queries, K).rows]
    return World(table, np.concatenate([queries, warming]), u, truth)


def drawn(centres: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Unit vectors around the centres."""
    spread = 0.5 * generator.standard_normal((count, DIMENSION), dtype=np.float32)
    vectors = centres[generator.integers(0, len(centres), count)] + spread
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def hnsw(table: np.ndarray, folder: pathlib.Path) -> faiss.Index:
    """32 links, efConstruction 200; built with all cores once, and kept."""
    path = folder / "hnsw-32-200.faiss"
    if not path.exists():
        index = faiss.IndexHNSWFlat(DIMENSION, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(table)
        faiss.write_index(index, str(path) + ".new")
        pathlib.Path(str(path) + ".new").replace(path)
    return faiss.read_index(str(path))


@contextlib.contextmanager
def peers(folder: pathlib.Path) -> Iterator[dict[str, Ask]]:
    """usearch and LanceDB, ended at the end."""
    running = {name: Peer(name, folder) for name in ("usearch", "lancedb")}
    try:
        yield {name: peer.ask for name, peer in running.items()}
    finally:
        for peer in running.values():
            peer.close()


def ours(index: AutoIndex, world: World) -> Ask:
    """Ours has no effort to set."""

    def find(query: np.ndarray, share: float, effort: int) -> np.ndarray:
        return index.search(query, K, filters=[filter_of(share)]).positions

    return lambda share, effort, first, count: one_by_one(find, world, share, effort, first, count)


def theirs(graph: faiss.Index, world: World) -> Ask:
    """FAISS with an `IDSelectorBitmap`, made before the clock runs."""
    bits = {share: np.packbits(world.u < share, bitorder="little") for share in SHARES}
    selectors = {share: faiss.IDSelectorBitmap(bits[share]) if share < 1 else None for share in SHARES}

    def find(query: np.ndarray, share: float, effort: int) -> np.ndarray:
        parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=selectors[share])
        return np.asarray(graph.search(query, K, params=parameters)[1])

    return lambda share, effort, first, count: one_by_one(find, world, share, effort, first, count)


def one_by_one(
    find: Callable[[np.ndarray, float, int], np.ndarray],
    world: World,
    share: float,
    effort: int,
    first: int,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Single queries, one after another."""
    seconds, found = [], []
    for row in range(first, first + count):
        started = time.perf_counter()
        positions = find(world.queries[row : row + 1], share, effort)
        seconds.append(time.perf_counter() - started)
        found.append(positions[0])
    return np.array(seconds), np.array(found)


def searches(asks: Mapping[str, Ask], world: World, repeats: int, num_queries: int) -> dict[str, Figure]:
    """Share by share, everyone in each round, in an order of its own.

    FAISS and usearch keep the effort that unfiltered search needs; `faiss_tuned` and LanceDB have each share's own.
    """
    efforts = {name: tuned(name, ask, world) for name, ask in asks.items()}
    notes = {(name, share): Note([], [], []) for name in asks for share in SHARES}
    p99: dict[str, list[float]] = {}
    drawn_order = random.Random(0)
    for share in SHARES:
        contenders = {
            f"{name} {share:g}": measured(
                ask, share, efforts[name][share], world, num_queries, notes[name, share]
            )
            for name, ask in asks.items()
        }
        p99 |= interleave(contenders, repeats, shuffled=drawn_order)
    figures: dict[str, Figure] = {}
    for name in asks:
        for share in SHARES:
            label = f"{name}_{100 * share:g}".replace(".", "")
            note = notes[name, share]
            figures[f"recall_{label}"] = Figure.of(note.recalls, "share")
            figures[f"p99_ms_{label}"] = Figure.of(p99[f"{name} {share:g}"], "ms")
            figures[f"p50_ms_{label}"] = Figure.of(note.p50_ms, "ms")
            figures[f"p99_cold_ms_{label}"] = Figure.of(note.p99_cold_ms, "ms")
            figures[f"effort_{label}"] = Figure.of([efforts[name][share]], "")
    return summary(asks, figures, p99) | figures


def summary(
    asks: Mapping[str, Ask], figures: Mapping[str, Figure], p99: Mapping[str, list[float]]
) -> dict[str, Figure]:
    """The worst recall of ours, and the worst and each ratio of p99 to every peer's."""
    mine = [figures[f"recall_tradewind_{100 * share:g}".replace(".", "")] for share in SHARES]
    result = {"recall_min": min(mine, key=lambda figure: figure.value)}
    for name in asks:
        if name == "tradewind":
            continue
        ratios = {share: paired(p99, name, share) for share in SHARES}
        result[f"p99_ratio_{name}"] = max(ratios.values(), key=lambda figure: figure.value)
        for share, figure in ratios.items():
            result[f"p99_ratio_{name}_{100 * share:g}".replace(".", "")] = figure
    return result


def paired(p99: Mapping[str, list[float]], name: str, share: float) -> Figure:
    """Ours to theirs, repeat by repeat."""
    pairs = zip(p99[f"tradewind {share:g}"], p99[f"{name} {share:g}"], strict=True)
    return Figure.of([mine / other for mine, other in pairs], "ratio")


def tuned(name: str, ask: Ask, world: World) -> dict[float, int]:
    """The least documented effort with recall 0.99, else the largest; see `searches` for at which share."""
    if name not in EFFORTS:
        return dict.fromkeys(SHARES, 0)
    if name in ("faiss", "usearch"):
        return dict.fromkeys(SHARES, least(name, ask, 1.0, world))
    return {share: least(name, ask, share, world) for share in SHARES}


def least(name: str, ask: Ask, share: float, world: World) -> int:
    """The least effort that reaches the target at this share."""
    count = min(TUNING_QUERIES, len(world.truth[share]))
    for effort in EFFORTS[name]:
        found = ask(share, effort, 0, count)[1]
        recall = float(np.mean(recall_of(found, existing(world, share, count))))
        say(f"{name} at {share:.1%} with effort {effort}: recall {recall:.4f}")
        if recall >= TARGET:
            return effort
    return EFFORTS[name][-1]


def measured(
    ask: Ask, share: float, effort: int, world: World, num_queries: int, note: Note
) -> Callable[[], float]:
    """One round of one contender: its p99 in milliseconds once it is warm; the rest is noted."""

    def run() -> float:
        cold = ask(share, effort, num_queries, WARM_QUERIES)[0]
        seconds, found = ask(share, effort, 0, num_queries)
        note.recalls.append(float(np.mean(recall_of(found, existing(world, share, num_queries)))))
        note.p50_ms.append(float(np.median(seconds)) * 1e3)
        note.p99_cold_ms.append(float(np.quantile(cold, 0.99)) * 1e3)
        return float(np.quantile(seconds, 0.99)) * 1e3

    return run


def existing(world: World, share: float, count: int) -> np.ndarray:
    """The true answer of the first queries."""
    return world.truth[share][:count]


def filter_of(share: float) -> Filter | None:
    """`u < share`; no value is exactly a share."""
    return None if share == 1.0 else Range(field="u", max=share)


def first_filters(index: AutoIndex, world: World) -> dict[str, Figure]:
    """Milliseconds of a search whose filter was never met before, at 50% and at 1%."""
    figures = {}
    for share in (0.5, 0.01):
        taken = []
        for row in range(20):
            wanted = Range(field="u", max=share + 1e-6 * (row + 1))
            started = time.perf_counter()
            index.search(world.queries[row : row + 1], K, filters=[wanted])
            taken.append((time.perf_counter() - started) * 1e3)
        figures[f"first_filter_ms_{100 * share:g}"] = Figure.of(taken, "ms")
    return figures


def churn(index: AutoIndex, world: World) -> dict[str, Figure]:
    """15% of the items replaced, 15% deleted, as many new; recall while it goes on, at its end, and after the rebuild."""
    generator = np.random.default_rng(1)
    count, part = len(world.table), len(world.table) * 15 // 1000
    centres = world.table[generator.choice(count, 1000)]
    order = generator.permutation(count)
    now, u, alive = world.table.copy(), world.u.copy(), np.ones(count, dtype=np.bool_)
    before, drops, upsert_us = churned(index, world, now, u, alive), [], []
    for step in range(10):
        replaced, deleted = np.split(order[2 * step * part : 2 * (step + 1) * part], 2)
        places = np.concatenate([replaced, np.arange(len(now), len(now) + part)])
        vectors, values = drawn(4 * centres, len(places), generator), generator.random(len(places))
        started = time.perf_counter()
        index.upsert(places, vectors, {"u": values})
        upsert_us.append((time.perf_counter() - started) * 1e6 / len(places))
        index.delete(deleted)
        now, u = np.concatenate([now, vectors[part:]]), np.concatenate([u, values[part:]])
        now[replaced], u[replaced] = vectors[:part], values[:part]
        alive = np.concatenate([alive, np.ones(part, dtype=np.bool_)])
        alive[deleted] = False
        drops.append(before - churned(index, world, now, u, alive))
        say(f"churn {step + 1}/10: recall lost {drops[-1]:.4f}")
    index.wait_rebuilt()
    index.rebuild()
    drops.append(before - churned(index, world, now, u, alive))
    worst = max(drops)
    return {
        "recall_drop_churn": Figure(worst, "share", min(drops), worst, len(drops)),
        "upsert_us": Figure.of(upsert_us, "us"),
    }


def churned(index: AutoIndex, world: World, now: np.ndarray, u: np.ndarray, alive: np.ndarray) -> float:
    """The worst recall over the shares, over the items as they are now."""
    queries = world.queries[:TUNING_QUERIES]
    recalls = []
    for share in SHARES[:4]:
        held = np.flatnonzero(alive & (u < share))
        truth = held[best_rows(torch.from_numpy(now[held]), queries, K).rows]
        found = index.search(queries, K, filters=[filter_of(share)] * len(queries)).positions
        recalls.append(float(recall_of(found, truth).mean()))
    return min(recalls)


def timed(name: str, build: Callable[[], T]) -> T:
    """What was built, and how long that took, said."""
    started = time.perf_counter()
    made = build()
    say(f"{name}: ready in {time.perf_counter() - started:.1f} s")
    return made


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark alone."""
    parser.add_argument("--items", type=int, default=0, help="vectors (default a million; quick 20,000)")


if __name__ == "__main__":
    main(NAME, measure, packages=("faiss-cpu", "torch", "numpy"), add_flags=add_flags)
