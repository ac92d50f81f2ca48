import pytest
import torch

from recipes.recommender.export import Encoder, export_encoder, export_ranker
from recipes.recommender.models.base import Settings
from recipes.recommender.models.hstu import HSTU
from recipes.recommender.models.sasrec import SASRec
from recipes.recommender.rank import Ranker
from tests.recipes.recommender.builders import random_batch

SHAPES = [[1], [12], [1, 1], [3, 12, 7], [5] * 40]


def build(kind, **changes):
    torch.manual_seed(3)
    model = kind(30, Settings(dimension=16, max_history=12, **changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (HSTU, {}),
        (SASRec, {}),
        (HSTU, {"temperature": 0.07}),
        (HSTU, {"seen": 32, "gap": True, "calendar": 5, "calendar_span_s": (0, 10**6)}),
    ],
)
@torch.no_grad()
def test_exported_encoder_equals_eager(kind, changes):
    """The exported program gives the eager model's newest queries for any number of histories and tokens."""
    model = build(kind, **changes)
    program = export_encoder(model).module()
    for lengths in SHAPES:
        batch = random_batch(lengths)
        now = batch.next_times[batch.last]
        got = program(batch.values, batch.offsets, batch.timestamps, batch.ratings, now)
        torch.testing.assert_close(got, model(batch)[0][batch.last], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_history_of_one_unknown_item_is_encoded():
    """The stand-in for an empty history gives a finite query."""
    encoder = Encoder(build(HSTU))
    zero = torch.zeros(1, dtype=torch.int64)
    assert encoder(zero, torch.tensor([0, 1]), zero, torch.zeros(1), zero).isfinite().all()


@pytest.mark.parametrize("user_features", [1, 24])
@torch.no_grad()
def test_exported_ranker_equals_eager(user_features):
    """The exported ranking program follows eager for any number of requests and candidates."""
    torch.manual_seed(0)
    ranker = Ranker(torch.randn(30, 16), torch.randn(30, 4), user_features).eval()
    torch.nn.init.normal_(ranker.second.weight)
    program = export_ranker(ranker, 16, user_features).module()
    for requests, count in ((1, 1), (1, 50), (7, 3)):
        scores = torch.randn(requests, count)
        inputs = (torch.randn(requests, 16), torch.randint(1, 30, (requests, count)), scores)
        inputs = (*inputs, torch.randn(requests, user_features))
        torch.testing.assert_close(program(*inputs), ranker(*inputs))


def test_an_untrained_ranker_keeps_the_order():
    """Before training, ranking scores are the retrieval scores."""
    ranker = Ranker(torch.randn(30, 16), torch.randn(30, 4), 2)
    scores = torch.randn(3, 8)
    ranked = ranker(torch.randn(3, 16), torch.randint(1, 30, (3, 8)), scores, torch.randn(3, 2))
    torch.testing.assert_close(ranked, scores)
