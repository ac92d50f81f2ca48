import dataclasses

import numpy as np
import pytest

from recipes.recommender.split import leave_one_out, windows
from recipes.recommender.views import Views
from tests.recipes.recommender.builders import small_log

LOG = small_log(seed=2)
COARSE = dataclasses.replace(LOG, timestamps=LOG.timestamps // 5000 * 5000)
SPLIT = leave_one_out(COARSE, max_history=7)
SPANS = windows(SPLIT, 7)


def draw(views, seed=0):
    rows, counts, _ = views.draw(SPLIT, SPANS, np.random.default_rng(seed))
    return np.split(rows, np.cumsum(counts)[:-1])


def test_as_built_windows_are_shown_as_they_are():
    """Without variation a window's rows are its span's and the target after it, whatever the seed."""
    for part, (start, stop, _) in zip(draw(Views(), seed=5), SPANS, strict=True):
        assert part.tolist() == list(range(start, stop + 1))


def test_only_ties_change_places():
    """Shuffled windows hold the same events in the order of time, and some tie is in another order."""
    straight, shuffled = draw(Views()), draw(Views(shuffle_ties=True))
    times = SPLIT.log.timestamps
    for before, after in zip(straight, shuffled, strict=True):
        assert sorted(after) == before.tolist()
        np.testing.assert_array_equal(times[after], times[before])
    tied = sum((np.diff(times[part]) == 0).any() for part in straight)
    assert tied
    assert any((a != b).any() for a, b in zip(straight, shuffled, strict=True))


def test_shifted_windows_stay_inside_training():
    """A shifted window is as long as before, ends later by at most the shift, and reaches no held-out event."""
    moved = draw(Views(shift=3))
    by = []
    for part, (start, stop, _) in zip(moved, SPANS, strict=True):
        user = np.searchsorted(SPLIT.log.offsets, start, side="right") - 1
        assert part[-1] < SPLIT.train_stop[user]
        assert len(part) == stop - start + 1
        by.append(int(part[0] - start))
    assert set(by) == {0, 1, 2, 3}


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_dropping_leaves_something_to_learn_from(share):
    """About the share asked for is left out, in order, and every window keeps an input and a target."""
    straight, dropped = draw(Views()), draw(Views(drop=share))
    for before, after in zip(straight, dropped, strict=True):
        assert len(after) >= 2
        assert (np.diff(after) > 0).all()
        assert set(after) <= set(before.tolist())
    assert sum(map(len, dropped)) < sum(map(len, straight))


def test_the_same_generator_draws_the_same_view():
    """What a step sees is a function of its generator alone, so a resumed run sees it again."""
    views = Views(shuffle_ties=True, shift=3, drop=0.3)
    again = [np.concatenate(draw(views, seed)).tolist() for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


@pytest.mark.parametrize("views", [Views(), Views(shift=3), Views(drop=0.5, shuffle_ties=True)])
def test_targets_are_the_newest_of_their_window(views):
    """A window keeps an input, has no more targets than its stride, and only the oldest window has more."""
    spans = windows(SPLIT, 4)
    _, counts, targets = views.draw(SPLIT, spans, np.random.default_rng(0))
    oldest = np.isin(spans[:, 0], SPLIT.log.offsets)
    assert (targets < counts).all()
    assert (targets[~oldest] <= 4).all()
    assert (targets[~oldest] < counts[~oldest] - 1).any()
    assert (targets[oldest] > 4).any() or views.drop
