import dataclasses

import torch

from recipes.recommender.models.base import Settings
from recipes.recommender.models.when import When
from tests.recipes.recommender.builders import random_batch

SPAN = (1000, 1999)


def test_the_calendar_is_cut_in_equal_parts():
    """Parts are equally long, and a time outside the training log's belongs to the nearest part."""
    when = When(Settings(dimension=4, calendar=4, calendar_span_s=SPAN))
    times = torch.tensor([0, 1000, 1249, 1250, 1999, 2000, 10**9])
    assert when.part(times).tolist() == [0, 0, 0, 1, 3, 3, 3]


@torch.no_grad()
def test_a_token_knows_the_gap_and_the_calendar_of_the_next_event_only():
    """Moving a token's next event in time changes that token alone; without both nothing changes."""
    batch, x = random_batch([6]), torch.zeros(6, 4)
    times = batch.next_times.clone()
    times[2] += 10**6
    moved = dataclasses.replace(batch, next_times=times)
    for changes, different in (({"gap": True}, True), ({"calendar": 9}, True), ({}, False)):
        when = When(Settings(dimension=4, calendar_span_s=(0, 2 * 10**6), **changes))
        same = (when(x, batch) == when(x, moved)).all(1)
        assert same.tolist() == [True, True, not different, True, True, True]
