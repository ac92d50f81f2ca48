"""Train RecBole 1.2.1's SASRec and keep its scores. Runs in an environment of its own.

    python bench/peers/recbole_sasrec.py --data DIR --out DIR

DIR of `--data` holds `ml100k/ml100k.inter` (written by `bench/recommender.py`): the same
events in the same total order as ours, so both sides hold out the same items. Settings are
RecBole's own for SASRec (`properties/model/SASRec.yaml`), cross-entropy over all items,
leave-one-out by time, full ranking. Writes `result.json` and `scores.npz` (one row a user).
"""

import argparse
import json
import os
import pathlib
import resource
import sys
import time
import types

SETTINGS = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "MAX_ITEM_LIST_LENGTH": 50,
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "metrics": ["Recall", "MRR", "NDCG", "Hit"],
    "topk": [10, 50],
    "valid_metric": "NDCG@10",
    "show_progress": False,
    "use_gpu": False,
}


def stub_ray() -> None:
    """RecBole imports ray.tune for hyperparameter search only; stand in an empty module."""
    ray = types.ModuleType("ray")
    ray.tune = types.ModuleType("ray.tune")
    sys.modules.update({"ray": ray, "ray.tune": ray.tune})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=2020)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    stub_ray()
    import functools

    import numpy as np
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_logger, init_seed

    torch.load = functools.partial(torch.load, weights_only=False)  # its own checkpoint
    config = Config(
        model="SASRec",
        dataset="ml100k",
        config_dict={
            **SETTINGS,
            "data_path": args.data,
            "epochs": args.epochs,
            "seed": args.seed,
            "checkpoint_dir": str(args.out / "saved"),
        },
    )
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    epochs: list[float] = []
    original = trainer._train_epoch

    def timed(*a, **k):
        started = time.perf_counter()
        value = original(*a, **k)
        epochs.append(time.perf_counter() - started)
        with open(args.out / "epochs.jsonl", "a") as log:
            log.write(
                json.dumps({"epoch": len(epochs), "seconds": epochs[-1], "load": os.getloadavg()[0]}) + "\n"
            )
        return value

    trainer._train_epoch = timed
    started = time.perf_counter()
    best, best_metrics = trainer.fit(train, valid, saved=True, show_progress=False)
    wall = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    metrics = trainer.evaluate(test, load_best_model=True, show_progress=False)
    scores, users, targets = [], [], []
    model.eval()
    with torch.no_grad():
        for interaction, _, _, positive in test:
            scores.append(model.full_sort_predict(interaction).view(len(interaction), -1).numpy())
            users += dataset.id2token("user_id", interaction["user_id"].numpy()).tolist()
            targets += dataset.id2token("item_id", positive.numpy()).tolist()
    items = dataset.id2token("item_id", np.arange(dataset.num("item_id"))).tolist()
    np.savez_compressed(
        args.out / "scores.npz",
        scores=np.concatenate(scores).astype("float32"),
        users=np.array(users),
        targets=np.array(targets),
        items=np.array(items),
    )
    result = {
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "epochs": len(epochs),
        "epoch_s": epochs,
        "best_valid_ndcg10": float(best),
        "valid": {k: float(v) for k, v in best_metrics.items()},
        "test": {k: float(v) for k, v in metrics.items()},
        "seed": args.seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    (args.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
