import numpy as np
import pytest

from recipes.recommender.data import from_arrays
from recipes.recommender.split import leave_one_out, training_batch, windows
from recipes.recommender.views import Views
from tests.recipes.recommender.builders import small_log


def test_newest_two_events_are_held_out():
    """Per user the last event is the test, the one before it validation, and histories end just before them."""
    log = small_log()
    split = leave_one_out(log, max_history=7)
    for u, (a, b) in enumerate(zip(log.offsets[:-1], log.offsets[1:], strict=True)):
        assert split.test.targets[u] == log.items[b - 1]
        assert split.valid.targets[u] == log.items[b - 2]
        assert split.test.spans[u].tolist() == [max(a, b - 8), b - 1]
        assert split.valid.spans[u].tolist() == [max(a, b - 9), b - 2]
        assert split.valid.now[u] == log.timestamps[b - 2]
        np.testing.assert_array_equal(split.test.seen[u], log.items[a : b - 1])


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_every_training_event_is_a_target_once(stride):
    """No training event is lost or repeated, no held-out event is a target, and each has the history it can."""
    log = small_log(seed=3)
    split = leave_one_out(log, max_history=7)
    rows, counts, asked = Views().draw(split, windows(split, stride), np.random.default_rng(0))
    batch, token, items = training_batch(log, rows, counts, asked)
    targets = np.concatenate(
        [part[len(part) - n :] for part, n in zip(np.split(rows, np.cumsum(counts)[:-1]), asked, strict=True)]
    )
    users = list(zip(log.offsets, split.train_stop, strict=False))
    assert sorted(targets) == sorted(np.concatenate([np.arange(a + 1, b) for a, b in users]))
    np.testing.assert_array_equal(items, log.items[targets])
    np.testing.assert_array_equal(batch.next_times.numpy()[token], log.timestamps[targets])
    np.testing.assert_array_equal(batch.timestamps.numpy()[token], log.timestamps[targets - 1])
    history = (
        token - batch.offsets.numpy()[np.searchsorted(batch.offsets.numpy()[1:], token, side="right")] + 1
    )
    before = targets - log.offsets[np.searchsorted(log.offsets, targets, side="right") - 1]
    assert (history >= np.minimum(before, 7 - stride)).all()


def test_users_with_two_events_only_train():
    """A user too short to hold out from is in training and in neither held-out set."""
    log = from_arrays(["a", "a", "b", "b", "b"], ["x", "y", "x", "y", "z"], np.arange(5))
    split = leave_one_out(log)
    assert split.train_stop.tolist() == [2, 3]
    assert split.test.users.tolist() == [1]
