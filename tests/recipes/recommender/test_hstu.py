import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from recipes.recommender.jagged import single_layout
from recipes.recommender.models.base import Settings
from recipes.recommender.models.hstu import HSTU
from recipes.recommender.models.sasrec import SASRec
from recipes.recommender.models.when import time_bucket
from tests.recipes.recommender.builders import random_batch

SETTINGS = Settings(dimension=16, heads=2, layers=2, max_history=12, dropout=0.0)
LENGTHS = [1, 12, 5, 11, 2, 12, 7, 3, 3, 9]


def build(kind=HSTU, **changes):
    torch.manual_seed(1)
    model = kind(30, dataclasses.replace(SETTINGS, **changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def naive_hstu(model, values, times, following, ratings):
    """The docstring's equations for one sequence, a loop over queries and keys, no batching, no groups."""
    width, heads = model.settings.dimension, model.settings.heads
    x = model.items.weight[values] * math.sqrt(width) + model.ratings((ratings * 2).long())
    for layer in model.layers:
        u, v, q, k = functional.silu(layer.f1(layer.norm_in(x))).split(width, dim=1)
        rows = []
        for i in range(len(values)):
            mixed = torch.zeros(heads, width // heads)
            for j in range(i + 1):
                bucket = int(time_bucket(following[i] - times[j]))
                for h in range(heads):
                    part = slice(h * width // heads, (h + 1) * width // heads)
                    score = q[i, part] @ k[j, part] / math.sqrt(width // heads)
                    score = score + layer.bias.position[h, i - j] + layer.bias.time[bucket, h]
                    mixed[h] += functional.silu(score) / model.settings.max_history * v[j, part]
            rows.append(mixed.flatten())
        x = x + layer.f2(layer.norm_out(torch.stack(rows)) * u)
    return model.norm(x)


@torch.no_grad()
def test_jagged_hstu_equals_a_naive_oracle():
    """The grouped, jagged forward gives what the equations give one sequence at a time."""
    model, batch = build(), random_batch(LENGTHS)
    got, _ = model(batch)
    for a, b in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        part = [t[a:b] for t in (batch.values, batch.timestamps, batch.next_times, batch.ratings)]
        torch.testing.assert_close(got[a:b], naive_hstu(model, *part), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [HSTU, SASRec])
@torch.no_grad()
def test_grouping_does_not_change_the_result(kind):
    """One rectangle over the whole batch gives what length-sorted groups give."""
    model, batch = build(kind), random_batch(LENGTHS)
    padded = dataclasses.replace(batch, layout=single_layout(batch.offsets, batch.values, 12))
    assert len(batch.layout.groups) > 1
    assert padded.layout.padding > batch.layout.padding
    torch.testing.assert_close(model(padded)[0], model(batch)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [HSTU, SASRec])
@torch.no_grad()
def test_the_future_does_not_change_the_past(kind):
    """Changing an event's item and rating changes queries from it on, none before it, none of other sequences."""
    model, batch = build(kind), random_batch([10, 10])
    before = model(batch)[0]
    values, ratings = batch.values.clone(), batch.ratings.clone()
    values[6], ratings[6] = values[6] % 29 + 1, 6 - ratings[6] + (ratings[6] == 3)
    after = model(dataclasses.replace(batch, values=values, ratings=ratings))[0]
    same = (before == after).all(1)
    assert same.tolist() == [True] * 6 + [False] * 4 + [True] * 10


@torch.no_grad()
def test_only_the_next_events_time_is_known():
    """A query depends on when its next event happens, and on no later time."""
    model, batch = build(), random_batch([10])
    times, following = batch.timestamps.clone(), batch.next_times.clone()
    before = model(batch)[0]
    times[6:], following[6:] = times[6:] + 10**6, following[6:] + 10**6
    following[5] = following[5] + 10**6
    after = model(dataclasses.replace(batch, timestamps=times, next_times=following))[0]
    assert (before == after).all(1).tolist()[:6] == [True] * 5 + [False]
    without = build(time_bias=False)
    moved = dataclasses.replace(batch, next_times=batch.next_times + 999)
    torch.testing.assert_close(without(batch)[0], without(moved)[0], rtol=0, atol=0)
