"""What a training run leaves behind: printed metrics, metrics.json, sample requests, the package."""

import argparse
import dataclasses
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recipes.recommender.evaluate import Evaluation, evaluate, evaluate_popularity
from recipes.recommender.export import RETRIEVE_K, write
from recipes.recommender.models.popularity import training_counts
from recipes.recommender.rank import fit_ranker
from recipes.recommender.recipe import Recipe
from recipes.recommender.split import Held, Split
from tradewind import names

if TYPE_CHECKING:
    from recipes.recommender.train import Fitted


def report(fitted: "Fitted", split: Split, recipe: Recipe, flags: argparse.Namespace) -> None:
    """Evaluate on the test items, print, and write everything into `flags.out`."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # The other workers of this host are done.
    test = evaluate(fitted.model, split, split.test)
    variants = {
        "seen items masked": evaluate(fitted.model, split, split.test, mask_seen=True).metrics(),
        "request time unknown": evaluate(
            fitted.model, split, without_request_time(split, split.test)
        ).metrics(),
    }
    facts = {
        "valid_ndcg@10": fitted.valid_ndcg10,
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "train_wall_s": fitted.wall_s,
        "attention_padding": fitted.padding,
    }
    ranked = fit_ranker(fitted.model, split, count=RETRIEVE_K, seed=flags.seed)
    facts |= {"valid_ndcg@10_retrieved": ranked.valid_before, "valid_ndcg@10_ranked": ranked.valid_after}
    _write(flags.out, {**test.metrics(), **facts, "variants": variants})
    show(flags.model, test.metrics(), variants)
    print("\n".join(f"{name:<24}{value:>10.4g}" for name, value in facts.items()))
    (flags.out / "requests.json").write_text(json.dumps(sample_requests(split)))
    package = write(
        flags.out / "package",
        fitted.model,
        ranked.ranker,
        split,
        name=flags.publish or "recommender",
        metrics={**test.metrics(), **facts},
        evaluation=per_user(test),
        lineage=lineage(split, recipe, flags),
    )
    print(f"package {package}")
    if flags.publish:
        publish(package, flags.publish)


def publish(package: pathlib.Path, name: str) -> None:
    """Make the package the next version of `name` in the registry."""
    from tradewind import models
    from tradewind.store import open_store

    with open_store() as store:
        version = models.publish(store, package, name)
    print(f"published {version.name}@{version.version}")


def lineage(split: Split, recipe: Recipe, flags: argparse.Namespace) -> dict[str, Any]:
    """Where the model comes from: data, settings and, under `tradewind run`, the run and its code."""
    run = os.environ.get(names.ENV_RUN)
    return {
        "data": flags.data,
        "data_fingerprint": split.log.fingerprint,
        "model": flags.model,
        "seed": flags.seed,
        "recipe": {k: v for k, v in dataclasses.asdict(recipe).items() if k != "kind"},
        "torch": str(torch.__version__),
        **({"run": run, "code": code_snapshot(run)} if run else {}),
    }


def code_snapshot(run: str) -> str | None:
    """Digest of the code this run was started from, as the store has it."""
    from tradewind.store import open_store

    with open_store() as store:
        return store.run(run).snapshot


def report_popularity(split: Split, out: pathlib.Path) -> None:
    """The popularity baseline's metrics, printed and written like a model's."""
    counts = training_counts(split)
    metrics = evaluate_popularity(counts, split.test).metrics()
    variants = {"seen items masked": evaluate_popularity(counts, split.test, mask_seen=True).metrics()}
    _write(out, {**metrics, "variants": variants})
    show("popularity", metrics, variants)


def without_request_time(split: Split, held: Held) -> Held:
    """The same questions from a caller who does not say when: asked at the time of the last known event."""
    return dataclasses.replace(held, now=split.log.timestamps[held.spans[:, 1] - 1])


def show(name: str, metrics: dict[str, float], variants: dict[str, dict[str, float]]) -> None:
    """Print the test metrics, full ranking, with each variant's in a row below."""
    print(f"{name:<24}" + "".join(f"{key:>10}" for key in metrics))
    for label, row in {"test, full ranking": metrics, **variants}.items():
        print(f"{label:<24}" + "".join(f"{row[key]:>10.4f}" for key in metrics))


def sample_requests(split: Split, count: int = 256) -> list[dict[str, Any]]:
    """Bodies for `POST /v1/recommend`: the test histories of up to `count` users."""
    log, requests = split.log, []
    for start, stop in split.test.spans[:count]:
        rows = zip(log.items[start:stop], log.timestamps[start:stop], log.ratings[start:stop], strict=True)
        history = [{"item": log.item_ids[i], "timestamp": int(t), "rating": float(r)} for i, t, r in rows]
        requests.append({"history": history, "k": 10})
    return requests


def per_user(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Metric arrays for the promotion gate, float32, one value a user."""
    return {name: values.astype(np.float32) for name, values in evaluation.per_user().items()}


def _write(out: pathlib.Path, metrics: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
