"""What a training run leaves behind: printed metrics, metrics.json, sample requests, the package."""

import argparse
import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.recommender.evaluate import Evaluation, evaluate, evaluate_popularity
from recipes.recommender.models.popularity import training_counts
from recipes.recommender.recipe import Recipe
from recipes.recommender.split import Held, Split

if TYPE_CHECKING:
    from recipes.recommender.train import Fitted


def report(fitted: "Fitted", split: Split, recipe: Recipe, flags: argparse.Namespace) -> None:
    """Evaluate on the test items, print, and write everything into `flags.out`."""
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
    _write(flags.out, {**test.metrics(), **facts, "variants": variants})
    show(flags.model, test.metrics(), variants)
    print(" ".join(f"{name} {value:.4g}" for name, value in facts.items()))
    (flags.out / "requests.json").write_text(json.dumps(sample_requests(split)))


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


def per_user(evaluation: Evaluation, split: Split) -> dict[str, np.ndarray]:
    """Metric arrays for the promotion gate, float32, one value a user."""
    return {name: values.astype(np.float32) for name, values in evaluation.per_user().items()}


def _write(out: pathlib.Path, metrics: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
