import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from recipes.recommender import tune
from recipes.recommender.recipe import recipe

TUNE = pathlib.Path(tune.__file__)
DATA = "synthetic:2000"


def test_draws_are_seeded_and_do_not_depend_on_how_many():
    """The same seed draws the same trials, more trials begin with the fewer, another seed draws others."""
    space = tune.SPACES["hstu"]
    few, many, others = tune.draw(space, 3, 0), tune.draw(space, 9, 0), tune.draw(space, 3, 1)
    assert few == many[:3]
    assert few != others
    assert all(trial.values[name] in space[name] for trial in many for name in space)


@pytest.mark.parametrize("model", tune.SPACES)
def test_every_value_of_a_space_is_a_recipes(model):
    """Each choice can be put into the model's recipe, so a space names nothing that does not exist."""
    for name, choices in tune.SPACES[model].items():
        for value in choices:
            changed = recipe(model).change(**{name: value})
            parts = (changed, changed.settings, changed.views)
            assert [getattr(part, name) for part in parts if hasattr(part, name)] == [value]


def test_the_best_climb_on():
    """Of six trials two go to the second rung and one to the third; the rest stay where they were, best first."""
    trials = [tune.Trial(index=i, values={}) for i in range(6)]
    asked = []

    def climb(alive, epochs):
        asked.append((epochs, [trial.index for trial in alive]))
        return [dataclasses.replace(t, epochs=epochs, valid=epochs + t.index / 10) for t in alive]

    table = tune.halve(trials, (1, 2, 3), climb)
    assert asked == [(1, [0, 1, 2, 3, 4, 5]), (2, [5, 4]), (3, [5])]
    assert [(t.index, t.epochs) for t in table] == [(5, 3), (4, 2), (3, 1), (2, 1), (1, 1), (0, 1)]


def test_climbing_from_a_checkpoint_is_training_straight_through(tmp_path):
    """One epoch and then two more give what three at once give, augmentation included."""
    trial = tune.Trial(index=0, values={"shift": 5, "drop": 0.2, "batch_size": 16, "learning_rate": 3e-3})
    results = []
    for folder, rungs in (("steps", (1, 3)), ("straight", (3,))):
        search = tune.Search(model="sasrec", data=DATA, seed=4, folder=tmp_path / folder)
        reached = trial
        for epochs in rungs:
            reached = tune.train_to(search, epochs, reached)
        results.append((reached.valid, reached.epoch))
    assert results[0] == results[1]
    assert results[0][1] > 1, "the best epoch must come after the checkpoint, or nothing was compared"


def test_the_table_is_written(tmp_path):
    """The command prints and writes each model's trials with the space they came from; the first is chosen."""
    out = tmp_path / "search.json"
    words = [
        "--models",
        "sasrec",
        "--trials",
        "2",
        "--rungs",
        "1",
        "--jobs",
        "1",
        "--data",
        DATA,
        "--out",
        out,
    ]
    done = subprocess.run([sys.executable, TUNE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["models"]["sasrec"]
    assert found["chosen"] == found["trials"][0]["values"]
    assert found["space"].keys() == found["chosen"].keys()
    assert [trial["epochs"] for trial in found["trials"]] == [1, 1]
    assert found["trials"][0]["valid"] >= found["trials"][1]["valid"] > 0
    assert f"{found['trials'][0]['valid']:.4f}" in done.stdout
