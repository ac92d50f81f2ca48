"""Train, evaluate and package a recommender; runs under `tradewind run`, torchrun or plain `python`.

    python recipes/recommender/train.py --model hstu --data ml-100k
    tradewind run recipes/recommender/train.py --workers 2 -- --model hstu --data events.parquet

The loop in `fit` is a plain PyTorch loop; the lines that mention `train` or `loop` are all that
Tradewind adds: resume after a kill, checkpoints on preemption, metrics and the step ledger.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import time

if not __package__:  # run as a script: make the repository importable
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from recipes.recommender import data, loss, outcome
from recipes.recommender.best import Best
from recipes.recommender.evaluate import evaluate
from recipes.recommender.models.base import SequenceModel
from recipes.recommender.models.popularity import training_counts
from recipes.recommender.recipe import FULL_SOFTMAX_UP_TO, RECIPES, Recipe, recipe
from recipes.recommender.split import Split, leave_one_out, training_batch, windows
from tradewind import names, train


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained model with the weights that did best on validation."""

    model: SequenceModel
    valid_ndcg10: float
    best_epoch: int
    epochs: int
    wall_s: float
    padding: float
    """Mean fraction of attention's cells that was padding."""


def fit(
    split: Split, recipe: Recipe, *, seed: int, folder: pathlib.Path | None, context: train.Distributed
) -> Fitted:
    """Train until validation NDCG@10 has not improved for `recipe.patience` epochs.

    Checkpoints lie in `folder`, or where whoever started this keeps those of the run.
    """
    train.seed_everything(seed)
    started, padding = time.perf_counter(), []
    spans = windows(split, recipe.stride)
    size = min(recipe.batch_size, len(spans))
    batches = train.Batches(len(spans), size, seed=seed, epochs=recipe.epochs, drop_last=True)
    plain = recipe.build(split).to(context.device)
    best = Best(plain, recipe.average, recipe.patience)
    # Buffers are the same on every worker from the start; sending them each step would only cost time.
    model = DistributedDataParallel(plain, forward_sync_buffers=False) if context.world > 1 else plain
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / recipe.warmup_steps)
    )
    objective = Objective(split, recipe)
    loop = train.Loop(
        model=model, optimizer=optimizer, scheduler=scheduler, data=batches, extra=best, checkpoint_dir=folder
    )
    for rows in loop:
        rng = np.random.default_rng(
            [seed, loop.step, context.rank]
        )  # so a resumed run draws as it would have
        batch, asked, targets = training_batch(split.log, *recipe.views.draw(split, spans[rows], rng))
        query, table = model(batch.to(context.device))
        asked, targets = (torch.from_numpy(part).to(context.device) for part in (asked, targets))
        value = objective(query[asked], table, targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        scheduler.step()
        best.follow(plain)
        loop.log(loss=value)
        padding.append(batch.layout.padding)
        if (loop.step + 1) % batches.steps_per_epoch == 0:
            best.judge(evaluate(best.model, split, split.valid).metrics()["ndcg@10"])
            loop.log(valid_ndcg10=best.score)
            if best.patience_is_over:
                batches.epochs = batches.epoch  # the stream ends here
    wall_s = time.perf_counter() - started
    return Fitted(
        best.restore(), best.score, best.epoch, best.epochs, wall_s, float(np.mean(padding or [0.0]))
    )


class Objective:
    """Full softmax over a small catalogue, sampled softmax with the logQ correction over a large one."""

    def __init__(self, split: Split, recipe: Recipe) -> None:
        self.smoothing = recipe.smoothing
        large = split.log.num_items > FULL_SOFTMAX_UP_TO
        counts = torch.from_numpy(training_counts(split))
        self.sampler = loss.Sampler(counts, recipe.negatives) if large else None

    def __call__(self, query: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.sampler is None:
            return loss.full_softmax(query, table, targets, self.smoothing)
        negatives = self.sampler.draw().to(query.device)
        return loss.sampled_softmax(query, table, targets, negatives, self.sampler.log_q.to(query.device))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=[*RECIPES, "popularity"], default="hstu")
    parser.add_argument(
        "--data", default="ml-100k", help="ml-100k, synthetic[:EVENTS], or a .parquet or .csv"
    )
    parser.add_argument("--epochs", type=int, help="at most this many (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="folder for metrics, package and checkpoints")
    parser.add_argument("--publish", metavar="NAME", help="publish the package as a version of NAME")
    flags = parser.parse_args()
    if flags.out is None:
        flags.out = pathlib.Path(os.environ.get(names.ENV_RUN_DIR, "recommender-out")) / flags.model
    return flags


def main() -> None:
    flags = parse()
    split = leave_one_out(data.load(flags.data))
    if flags.model == "popularity":
        outcome.report_popularity(split, flags.out)
        return
    chosen = recipe(flags.model)
    if flags.epochs is not None:
        chosen = chosen.change(epochs=flags.epochs)
    alone = (
        names.ENV_RUN_DIR not in os.environ
    )  # Else the run has a folder for them, which outlives its hosts.
    folder = flags.out / names.CHECKPOINTS_DIR if alone else None
    with train.distributed() as context:
        fitted = fit(split, chosen, seed=flags.seed, folder=folder, context=context)
        if context.rank == 0:
            outcome.report(fitted, split, chosen, flags)


if __name__ == "__main__":
    main()
