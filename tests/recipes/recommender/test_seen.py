import dataclasses

import torch

from recipes.recommender.models.base import Settings
from recipes.recommender.models.hstu import HSTU
from recipes.recommender.models.seen import SCALE, Seen, random_codes
from tests.recipes.recommender.builders import random_batch


def build(width=64, weight=2.0):
    torch.manual_seed(0)
    model = HSTU(30, Settings(dimension=16, max_history=12, dropout=0.0, seen=width)).eval()
    torch.nn.init.constant_(model.seen.weight, weight / SCALE)
    return model


@torch.no_grad()
def test_an_item_of_the_history_scores_lower():
    """The weight comes off the score of an item met up to a token, once a time met, noise aside; not before it."""
    codes = Seen(30, 4096, 0.0).eval()
    torch.nn.init.constant_(codes.weight, 2.0 / SCALE)
    batch = random_batch([3, 9])
    scores = codes(batch) @ codes.codes.T
    for start, stop in ((0, 3), (3, 12)):
        for token in range(start, stop):
            counts = torch.bincount(batch.values[start : token + 1], minlength=30)
            assert ((scores[token] + 2.0 * counts)[1:].abs() < 0.7).all()


@torch.no_grad()
def test_what_others_have_seen_does_not_matter():
    """A query is bit for bit the same whatever the other sequences of its batch hold."""
    model, batch = build(), random_batch([4, 11, 7])
    values = batch.values.clone()
    values[4:15] = values[4:15] % 29 + 1
    before, after = model(batch)[0], model(dataclasses.replace(batch, values=values))[0]
    assert (before == after).all(1).tolist() == [True] * 4 + [False] * 11 + [True] * 7


def test_codes_are_the_same_everywhere():
    """Codes do not depend on the process's generator; each has length one, the unknown item's zero."""
    torch.manual_seed(1)
    first = random_codes(30, 16)
    torch.manual_seed(2)
    assert torch.equal(first, random_codes(30, 16))
    torch.testing.assert_close(first.norm(dim=1), torch.tensor([0.0] + [1.0] * 29))


def test_the_weight_learns_in_either_direction():
    """Training on histories that never repeat makes it positive, on those that only repeat negative."""
    for repeats, sign in ((False, 1.0), (True, -1.0)):
        model, batch = build(weight=0.0), random_batch([12] * 4)
        values = torch.full_like(batch.values, 7) if repeats else torch.arange(48) % 12 + 1
        targets = values if repeats else values % 12 + 13
        query, table = model(dataclasses.replace(batch, values=values))
        torch.nn.functional.cross_entropy(query @ table[1:].T, targets - 1).backward()
        assert model.seen.weight.grad * sign < 0
