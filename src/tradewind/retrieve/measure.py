"""An index measures itself when it is built: what a scan and a probe cost here, and how much must be seen for the target.

Recall is measured on held-out queries against exact answers, for several k and shares of allowed items. The queries are
items moved a little, unless the caller has real ones; the audit corrects what they leave out.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from tradewind.retrieve.attributes import Attributes
from tradewind.retrieve.inverted import Allowed, Inverted
from tradewind.retrieve.plan import Cell, Curve, Profile
from tradewind.retrieve.scan import best_of, best_rows
from tradewind.retrieve.segments import PACKED_SHARE

Floats = npt.NDArray[np.float32]

_KS = (10, 100, 500)
_SHARES = (1.0, 0.3, 0.1, 0.03, 0.01)
_LADDER = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_BATCH = 16
_NUM_QUERIES = 128
_NOISE = 0.1


def measure(
    vectors: Floats,
    inverted: Inverted,
    attributes: Attributes | None,
    *,
    target: float,
    queries: Floats | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """The profile of an index over float32[N, D], for a recall of `target`."""
    generator = np.random.default_rng(0)
    if queries is None:
        queries = _moved(vectors[inverted.positions], generator)
    queries = np.ascontiguousarray(queries[:_NUM_QUERIES])
    cells = [
        cell for share in _SHARES for cell in _cells(vectors, inverted, queries, share, target, generator)
    ]
    timer = _Timer(queries, clock)
    return Profile(
        target=target,
        cells=tuple(cells),
        scan=timer.scan(vectors),
        subset=timer.subset(vectors, generator),
        probe=timer.probe(inverted),
        gather=timer.gather(vectors, inverted, generator),
        compile_us=_compile_us(attributes, clock),
        group_us=_group_us(vectors, inverted, clock),
    )


def _moved(vectors: Floats, generator: np.random.Generator) -> Floats:
    """Some of the items, each moved by a tenth of its spread."""
    rows = generator.choice(len(vectors), min(_NUM_QUERIES, len(vectors)), replace=False)
    noise = generator.standard_normal((len(rows), vectors.shape[1]), dtype=np.float32)
    moved: Floats = vectors[rows] + np.float32(_NOISE) * vectors[rows].std() * noise
    return moved


def _cells(
    vectors: Floats,
    inverted: Inverted,
    queries: Floats,
    share: float,
    target: float,
    generator: np.random.Generator,
) -> list[Cell]:
    """For one share of allowed items: the fewest that must be seen, for every k."""
    held = np.zeros(len(vectors), dtype=np.bool_)
    held[inverted.positions] = generator.random(len(inverted.positions)) < share
    allowed = None if share == 1.0 else inverted.allow(held)
    positions = inverted.positions if share == 1.0 else np.flatnonzero(held)
    if len(positions) < max(_KS):
        return []
    table = torch.from_numpy(vectors if len(positions) == len(vectors) else vectors[positions])
    truth = positions[best_rows(table, queries, max(_KS)).rows]
    return [_cell(inverted, queries, truth[:, :k], share, allowed, target) for k in _KS]


def _cell(
    inverted: Inverted,
    queries: Floats,
    truth: npt.NDArray[np.int64],
    share: float,
    allowed: Allowed | None,
    target: float,
) -> Cell:
    k, total = truth.shape[1], int((inverted.sizes if allowed is None else allowed.per_list).sum())
    recall = 0.0
    for factor in _LADDER:
        if factor * k > total:
            break
        found = inverted.search(queries, k, inverted.probes(queries, factor * k, allowed), allowed)[1]
        recalls = recall_of(found, truth)
        recall = float(recalls.mean())
        if recall - recalls.std() / len(recalls) ** 0.5 >= target:
            return Cell(k=k, share=share, need=factor * k, recall=recall)
    return Cell(k=k, share=share, need=0, recall=recall)


def recall_of(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Per query, the share of `truth` [B, K] that is in `found` [B, W]."""
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return np.array([len({*a} & {*b}) / len(b) for a, b in pairs])


class _Timer:
    """The fastest of a few runs each, as the others were disturbed; microseconds per query."""

    def __init__(self, queries: Floats, clock: Callable[[], float]) -> None:
        self._one, self._batch = queries[:1], np.resize(queries, (_BATCH, queries.shape[1]))
        self._clock = clock

    def scan(self, vectors: Floats) -> Curve:
        table = torch.from_numpy(vectors)
        return self._curve([len(vectors)], lambda queries, _: best_of(table, queries, 100))

    def subset(self, vectors: Floats, generator: np.random.Generator) -> Curve:
        """Of so few rows that they are kept side by side, those alone; of more, from all over the table."""
        rows = [count for count in (64, 1024, 8192, 65_536) if count <= len(vectors)]
        table, most = torch.from_numpy(vectors), PACKED_SHARE * len(vectors)
        some = {count: np.sort(generator.choice(len(vectors), count, False)) for count in rows}
        packed = {count: table[torch.from_numpy(some[count])] for count in rows if count <= most}

        def run(queries: Floats, count: int) -> None:
            if count in packed:
                best_of(packed[count], queries, 100)
            else:
                best_of(table, queries, 100, some[count])

        return self._curve(rows, run)

    def probe(self, inverted: Inverted) -> Curve:
        visits = [2**i for i in range(1, 20, 2) if 2**i <= inverted.num_lists]
        total = int(inverted.sizes.sum())
        needs = {max(1, total * lists // inverted.num_lists): lists for lists in visits}
        everything = np.full((max(1, int(inverted.positions.max()) + 8) + 7) // 8, 255, dtype=np.uint8)
        allowed = Allowed(everything, inverted.sizes)
        rows = [*needs] if needs else [total]

        def run(queries: Floats, need: int) -> None:
            inverted.search(queries, 100, inverted.probes(queries, need, allowed), allowed)

        return self._curve(rows, run)

    def gather(self, vectors: Floats, inverted: Inverted, generator: np.random.Generator) -> Curve:
        """Of a filter that holds one item in a hundred: the fewer it holds, the more lists are looked into."""
        held = np.zeros(len(vectors), dtype=np.bool_)
        some = generator.choice(
            len(inverted.positions), max(1, len(inverted.positions) // 100), replace=False
        )
        held[inverted.positions[some]] = True
        allowed, table = inverted.allow(held), torch.from_numpy(vectors)
        assert allowed.grouped is not None
        grouped = allowed.grouped

        def run(queries: Floats, need: int) -> None:
            probes = inverted.probes(queries, need, allowed)
            for query, lists in zip(queries, probes.lists, strict=True):
                best_of(table, query[None], 100, grouped.those_of(lists[lists >= 0]))

        return self._curve([count for count in (64, 512, 4096, 32_768) if count <= len(some)] or [1], run)

    def _curve(self, rows: Sequence[int], run: Callable[[Floats, int], object]) -> Curve:
        return Curve(
            rows=tuple(rows),
            one_us=tuple(self._us(lambda count=count: run(self._one, count)) for count in rows),  # type: ignore[misc]
            batched_us=tuple(
                self._us(lambda count=count: run(self._batch, count)) / _BATCH  # type: ignore[misc]
                for count in rows
            ),
            batch=_BATCH,
        )

    def _us(self, run: Callable[[], object]) -> float:
        return _least_us(run, self._clock)


def _least_us(run: Callable[[], object], clock: Callable[[], float], repeats: int = 7) -> float:
    run()
    taken = []
    for _ in range(repeats):
        started = clock()
        run()
        taken.append(clock() - started)
    return min(taken) * 1e6


def _compile_us(attributes: Attributes | None, clock: Callable[[], float]) -> float:
    """What one comparison over a column and the packing of its bits cost."""
    if attributes is None or not len(attributes):
        return 0.0
    column = np.zeros(len(attributes), dtype=np.float64)
    return _least_us(lambda: np.packbits(column <= 1.0, bitorder="little"), clock)


def _group_us(vectors: Floats, inverted: Inverted, clock: Callable[[], float]) -> float:
    """What it costs to find a filter's items list by list."""
    half = np.arange(len(vectors)) % 2 == 0
    return _least_us(lambda: inverted.allow(half), clock)
