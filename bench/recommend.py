"""A recommender at its peak: 1,000,000 synthetic items x 64, retrieve 500, rank 500, on two cores, inside 50 ms."""

import argparse
import json
import pathlib
import tempfile
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.harness import Figure, Options, main, say
from bench.served import compile_ahead, levels_answered, loads, serving

NAME = "recommend"
SLO_MS = 50.0
CANDIDATES, HISTORY, DIMENSION, K = 500, 50, 64, 10
LEARNERS, FIRST_LEARNER = 1024, 1 << 20
"""Users from whom the pre-ranker learns, and whom nobody else meets."""
SPREAD = 1.5
"""The held-out item is drawn from the softmax of the ranker's scores, scaled to this deviation over the candidates."""


def measure(options: Options) -> Mapping[str, Figure]:
    """Find what the full level alone can do, then offer 1.5 and 3 times that with the default levels.

    All data is synthetic: items in clusters, histories of one cluster or two, a ranker with fixed random weights that
    reorders what retrieval finds. NDCG@10 is that of one held-out item drawn from the ranker's own softmax over its
    500 candidates, in expectation, which favours the full level: its model is the truth. What a level loses is
    measured beside the server, over the same users; the server says how many answers each level gave.
    """
    num_items, seconds = (50_000, 4.0) if options.quick else (1_000_000, 15.0)
    rate, answered, loss15, loss30, answered15 = [], [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        world = World(num_items, learners=0 if options.extra.plain else LEARNERS)
        spec = {
            "model": str(world.write(folder / "model")),
            "candidates": CANDIDATES,
            "index": "faiss-ivf",
            "slo": {"latency_ms": SLO_MS},
        }
        lost = world.lost_by_level(folder / "model", users=128 if options.quick else 512)
        say("NDCG@10 lost by level: " + ", ".join(f"{level} {share:.4f}" for level, share in lost.items()))
        if options.extra.compiled:
            say(f"programs: {compile_ahead(spec, folder)}")
        bodies = [world.body(user) for user in range(256)]
        with serving(spec, folder) as url:
            route = url + "/v1/recommend"
            for _ in range(options.repeats):
                results = {}
                for multiple in (1.5, 3.0):
                    full = full_level(route, bodies, min(seconds / 4, 2.0))
                    rate.append(full)
                    before = levels_answered(url)
                    (result,) = loads(route, bodies, [stream(multiple * full, seconds)])
                    given = levels_answered(url) - before
                    results[multiple] = (result.attainment, weighted(given, lost))
                    say(
                        f"{multiple:g}x {result.offered_per_s:7.1f}/s  in time {result.attainment:.5f}  "
                        f"p99 {result.p99_ms:.1f} ms  lag p99 {result.schedule_lag_p99_ms:.1f} ms  "
                        f"lost {results[multiple][1]:.4f}  {dict(given)}  {result.statuses}"
                    )
                answered15.append(results[1.5][0])
                answered.append(results[3.0][0])
                loss15.append(results[1.5][1])
                loss30.append(results[3.0][1])
    return {
        "requests_per_s": Figure.of(rate, "1/s"),
        "answered_3x": Figure.of(answered, "share"),
        "ndcg_loss_15": Figure.of(loss15, "share"),
        "ndcg_loss_30": Figure.of(loss30, "share"),
        "answered_15": Figure.of(answered15, "share"),
    }


def full_level(route: str, bodies: list[bytes], seconds: float) -> float:
    """Requests a second that the full level alone answers in time; found anew for each load: machines change within minutes."""
    from tradewind.scale.capacity import find_capacity

    found = find_capacity(route, bodies, deadline_ms=SLO_MS, duration_s=seconds, headers={"x-min-level": "0"})
    return max((x.goodput_per_s for x in found.levels if x.p99_ms <= SLO_MS), default=found.per_s)


def stream(rate: float, seconds: float) -> dict[str, Any]:
    return {"rate": rate, "duration_s": seconds, "warmup_s": 1.0, "deadline_ms": SLO_MS, "connections": 1024}


def weighted(given: Counter[str], lost: Mapping[str, float]) -> float:
    """What the answers of a run lost on average."""
    return sum(count * lost[level] for level, count in given.items()) / max(given.total(), 1)


class World:
    """Synthetic items and users: clusters of unit vectors, popular items from the largest cluster."""

    def __init__(self, num_items: int, learners: int, seed: int = 0) -> None:
        self._learners = learners
        self._rng = np.random.default_rng(seed)
        clusters = max(16, num_items // 500)
        centers = self._rng.standard_normal((clusters, DIMENSION)).astype(np.float32)
        self._of = np.sort(self._rng.integers(0, clusters, num_items))
        noise = self._rng.standard_normal((num_items, DIMENSION)).astype(np.float32)
        table = centers[self._of] + 0.7 * noise
        table /= np.linalg.norm(table, axis=1, keepdims=True)
        self.table = np.vstack([np.zeros((1, DIMENSION), np.float32), table])
        self._first = np.searchsorted(self._of, np.arange(clusters + 1))
        self.popular = (1 + self._rng.permutation(num_items)[:100]).tolist()

    def history(self, user: int) -> list[int]:
        """A user's items, of one cluster or two; the same for the same user."""
        rng = np.random.default_rng([7, user])
        chosen = rng.choice(len(self._first) - 1, 1 + user % 2, replace=False)
        items = [
            rng.integers(self._first[c], max(self._first[c + 1], self._first[c] + 1), HISTORY) for c in chosen
        ]
        return (1 + rng.permutation(np.concatenate(items))[:HISTORY]).tolist()

    def body(self, user: int) -> bytes:
        return json.dumps({"history": [f"i{item}" for item in self.history(user)], "k": K}).encode()

    def write(self, path: pathlib.Path) -> pathlib.Path:
        """The package: mean-of-history encoder, a ranker of three layers, a pre-ranker distilled from that."""
        from bench.recommend_model import programs
        from tradewind.models import write_package

        write_package(
            path,
            name="recommend",
            task="recommend",
            programs=programs(
                self.table, CANDIDATES, [self.history(FIRST_LEARNER + n) for n in range(self._learners)]
            ),
            tensors={"items": {"embedding": _torch(self.table)}},
            vocabularies={"item": ["", *(f"i{n}" for n in range(1, len(self.table)))]},
            config={"max_history": HISTORY, "popular": self.popular},
        )
        return path

    def lost_by_level(self, path: pathlib.Path, users: int) -> dict[str, float]:
        """The share of expected NDCG@10 that each default level loses against the first, over some users."""
        import torch

        from tradewind.models import open_package
        from tradewind.serve.runners import runners_of

        runners = list(runners_of(open_package(path), 32, CANDIDATES, "faiss-ivf").values())
        totals: Counter[str] = Counter()
        for start in range(0, users, 32):
            histories = [self.history(user) for user in range(start, start + 32)]
            with torch.inference_mode():
                full = runners[0].run(_batch(histories, CANDIDATES))
                answers = {r.rung.name: r.run(_batch(histories, K))["items"].numpy() for r in runners}
            answers["popular"] = np.array([self._popular(history) for history in histories])
            for row, truth in enumerate(_probabilities(full)):
                for level, items in answers.items():
                    totals[level] += sum(
                        truth.get(int(item), 0.0) / np.log2(rank + 2)
                        for rank, item in enumerate(items[row, :K])
                    )
        best = totals[runners[0].rung.name]
        return {level: 1.0 - float(total / best) for level, total in totals.items()}

    def _popular(self, history: list[int]) -> list[int]:
        return [item for item in self.popular if item not in set(history)][:K]


def _probabilities(full: Mapping[str, Any]) -> list[dict[int, float]]:
    found = []
    for items, scores in zip(full["items"].numpy(), full["scores"].numpy(), strict=True):
        kept = np.isfinite(scores)
        items, scores = items[kept], scores[kept]
        weights = np.exp(SPREAD * (scores - scores.max()) / max(float(scores.std()), 1e-9))
        found.append(dict(zip(items.tolist(), (weights / weights.sum()).tolist(), strict=True)))
    return found


def _batch(histories: list[list[int]], k: int) -> dict[str, Any]:
    import torch

    flat = torch.tensor([item for history in histories for item in history])
    lengths = torch.tensor([len(history) for history in histories])
    ones = torch.ones(len(histories), dtype=torch.int64)
    return {
        "values": flat,
        "seen": flat,
        "num_seen": lengths,
        "timestamps": torch.zeros_like(flat),
        "ratings": torch.zeros(len(flat)),
        "lengths": lengths,
        "now": ones,
        "k": ones * k,
        "user": torch.zeros(len(histories), 0),
    }


def _torch(table: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(table)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Which package."""
    parser.add_argument("--plain", action="store_true", help="a package without a pre-ranker")
    parser.add_argument(
        "--compiled", action="store_true", help="programs compiled ahead: `tradewind compile`"
    )


if __name__ == "__main__":
    main(NAME, measure, packages=("torch", "faiss-cpu"), add_flags=add_flags)
