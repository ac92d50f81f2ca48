import dataclasses
import json
import pathlib

import pytest

from recipes.recommender.recipe import RECIPES, recipe
from tradewind.errors import SpecError

SEARCH = pathlib.Path(__file__).parents[3] / "bench" / "results" / "recommender-search.json"


@pytest.mark.parametrize("model", RECIPES)
def test_recipes_hold_what_the_search_chose(model):
    """Every value that the kept search chose is the recipe's, and it chose the best of its longest trials."""
    found = json.loads(SEARCH.read_text())["models"][model]
    assert recipe(model).change(**found["chosen"]) == recipe(model)
    longest = max(trial["epochs"] for trial in found["trials"])
    best = max((t for t in found["trials"] if t["epochs"] == longest), key=lambda trial: trial["valid"])
    assert best["values"] == found["chosen"]


def test_both_models_were_searched_alike():
    """The kept search gave every model the same number of trials to the same rungs."""
    models = json.loads(SEARCH.read_text())["models"]
    reached = [sorted(trial["epochs"] for trial in models[model]["trials"]) for model in RECIPES]
    assert reached[0] == reached[1]


def test_a_change_goes_where_its_field_is():
    """A field is changed wherever it belongs: the recipe, its settings, its views; the original stays."""
    before = recipe("hstu")
    after = before.change(stride=7, dropout=0.9, drop=0.4)
    assert (after.stride, after.settings.dropout, after.views.drop) == (7, 0.9, 0.4)
    assert (
        after.change(stride=before.stride, dropout=before.settings.dropout, drop=before.views.drop) == before
    )
    with pytest.raises(TypeError, match="no_such"):
        before.change(no_such=1)
    assert dataclasses.is_dataclass(after)


def test_an_unknown_model_is_named():
    """Asking for a model that is not there lists those that are."""
    with pytest.raises(SpecError, match="hstu, sasrec"):
        recipe("bert")
