import json

import numpy as np
import pytest
import torch

from bench.peers import recbole
from bench.recommender import Bootstrap
from recipes.recommender.data import from_arrays
from recipes.recommender.evaluate import rank_of
from tests.recipes.recommender.builders import small_log


def test_the_peers_ranks_are_ours():
    """RecBole's saved scores are ranked as ours are: all items but padding, ties counted half."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, (40, 21)).astype("float32")
    items = np.array(["[PAD]", *[f"i{k}" for k in range(1, 21)]])
    place = rng.integers(1, 21, 40)
    want = rank_of(torch.from_numpy(scores), torch.from_numpy(place))
    np.testing.assert_array_equal(recbole.ranks_of(scores, items, items[place]), want.numpy())


def test_the_peer_reads_our_order(tmp_path):
    """Sorted by the written timestamps, each user's events are ours in our order, and no two timestamps tie."""
    log = small_log()
    recbole.write_events(log, tmp_path)
    rows = [line.split("\t") for line in (tmp_path / "ml100k" / "ml100k.inter").read_text().splitlines()[1:]]
    assert len({time for *_, time in rows}) == len(rows)
    for u, name in enumerate(log.user_ids):
        written = sorted((float(time), item) for user, item, time in rows if user == name)
        ours = [log.item_ids[i] for i in log.items[log.offsets[u] : log.offsets[u + 1]]]
        assert [item for _, item in written] == ours


def test_keeping_leaves_ranks_by_user(tmp_path, monkeypatch):
    """What is kept can be loaded again, in the order of the users' ids, with the undisturbed training time."""
    monkeypatch.setattr(recbole, "KEPT", tmp_path / "kept.json")
    (tmp_path / "result.json").write_text(json.dumps({"epoch_s": [3.0, 2.0, 9.0]}))
    np.savez(
        tmp_path / "scores.npz",
        scores=np.array([[9, 1, 2, 3], [9, 2, 1, 3]], "float32"),
        users=np.array(["9", "10"]),
        targets=np.array(["a", "a"]),
        items=np.array(["[PAD]", "a", "b", "c"]),
    )
    met = [("9", "b"), ("9", "a"), ("9", "a"), ("10", "c"), ("10", "b"), ("10", "a")]
    recbole.keep(tmp_path, from_arrays(*zip(*met, strict=True), np.arange(6)))
    peer = recbole.load()
    assert peer.users == ["10", "9"]
    assert peer.ranks.tolist() == [2.0, 3.0]
    assert peer.ranks_masked.tolist() == [1.0, 2.0]
    assert peer.train_s == 6.0


def test_intervals_are_paired():
    """The same values on both sides give a ratio of exactly one, and a real gain an interval above it."""
    rng = np.random.default_rng(0)
    base = rng.random((3, 400))
    draw = Bootstrap(400)
    same = draw.ratio(base[:1], base[:1])
    assert (same.low, same.value, same.high) == pytest.approx((1, 1, 1))
    gain = draw.ratio(base + 0.1, base)
    assert 1 < gain.low < gain.value < gain.high
    mean = draw.mean(base)
    assert mean.low < base.mean() == pytest.approx(mean.value)
