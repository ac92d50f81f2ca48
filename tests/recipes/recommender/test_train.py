import json
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
import torch

from recipes.recommender import data
from recipes.recommender.evaluate import rank_of
from recipes.recommender.split import leave_one_out
from recipes.recommender.synthetic import World, generate
from tradewind.models import open_package

TRAIN = pathlib.Path(__file__).parents[3] / "recipes" / "recommender" / "train.py"


def run(*words, **kwargs):
    command = [sys.executable, str(TRAIN), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "events.parquet"
    world = World(num_items=120, num_clusters=6, longest=60)
    pyarrow.parquet.write_table(generate(num_events=3_000, world=world).table(), path)
    return path


@pytest.fixture(scope="module")
def trained(events, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, run("--data", events, "--epochs", 3, "--out", out, cwd=out)


def test_it_trains_and_beats_popularity(trained, events, tmp_path):
    """A few epochs on a user's own Parquet file rank better than popularity does."""
    out, text = trained
    assert "ndcg@10" in text
    run("--data", events, "--model", "popularity", "--out", tmp_path)
    ours, popularity = (json.loads((f / "metrics.json").read_text())["mrr"] for f in (out, tmp_path))
    assert ours > popularity


def test_the_package_answers_like_the_evaluation(trained, events):
    """Packaged program and items, asked what the test asks, give each user's reported reciprocal rank."""
    out, _ = trained
    package = open_package(out / "package")
    position = {name: i for i, name in enumerate(package.vocabulary("item"))}
    table, encode = package.tensors("items")["embedding"], package.program("encode")
    test = leave_one_out(data.load(str(events))).test
    for row, request in enumerate(json.loads((out / "requests.json").read_text())[:8]):
        history = request["history"]
        values = torch.tensor([position[e["item"]] for e in history])
        times, ratings = (torch.tensor([e[key] for e in history]) for key in ("timestamp", "rating"))
        with torch.no_grad():
            query = encode(
                values, torch.tensor([0, len(history)]), times, ratings, torch.tensor([test.now[row]])
            )
        rank = rank_of(query @ table.T, torch.tensor([test.targets[row]]))
        assert 1 / float(rank) == pytest.approx(float(package.evaluation()["mrr"][row]))


def test_the_package_ranks(trained):
    """The packaged ranking program takes the features the configuration names and scores each candidate."""
    package = open_package(trained[0] / "package")
    features = torch.zeros(1, len(package.config["user_features"]))
    query = torch.zeros(1, package.config["dimension"])
    with torch.no_grad():
        scores = package.program("rank")(query, torch.tensor([[1, 2, 3]]), torch.rand(1, 3), features)
    assert scores.shape == (1, 3)
    assert len(set(package.config["popular"])) == len(package.config["popular"]) > 0


def test_a_finished_run_resumes_to_the_same_answer(trained, events):
    """Running again over a finished run's folder trains nothing more and reports the same metrics."""
    out, _ = trained
    before = json.loads((out / "metrics.json").read_text())
    run("--data", events, "--epochs", 3, "--out", out, cwd=out)
    after = json.loads((out / "metrics.json").read_text())
    assert after["ndcg@10"] == before["ndcg@10"]
    assert after["epochs"] == before["epochs"] == 3


def test_ranking_does_not_worsen_validation(trained):
    """The kept ranker's validation NDCG@10 is at least the retrieval order's."""
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    assert metrics["valid_ndcg@10_ranked"] >= metrics["valid_ndcg@10_retrieved"]
    assert np.isfinite(metrics["valid_ndcg@10_ranked"])
