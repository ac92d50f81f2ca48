"""How each model is built and trained: one frozen value a model, found by `tune.py` on validation only."""

import dataclasses

import torch

from recipes.recommender.models.base import SequenceModel, Settings
from recipes.recommender.models.hstu import HSTU
from recipes.recommender.models.sasrec import SASRec
from recipes.recommender.split import Split, held_out
from recipes.recommender.views import Views
from tradewind.errors import SpecError

FULL_SOFTMAX_UP_TO = 20_000
"""Catalogues larger than this train with sampled softmax."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model's shape and its training."""

    kind: type[SequenceModel]
    settings: Settings
    epochs: int = 40
    patience: int = 10
    """Epochs without a better validation NDCG@10 before training ends."""
    batch_size: int = 32
    """Windows a step, over all workers."""
    stride: int = 50
    """Events between the ends of a user's training windows, and so the most targets of one."""
    views: Views = dataclasses.field(default_factory=Views)
    """How windows are varied from step to step."""
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.0
    smoothing: float = 0.0
    average: float = 0.99
    """Decay of the exponential moving average of the weights, which is what is evaluated; 0 for none."""
    negatives: int = 1024

    def build(self, split: Split) -> SequenceModel:
        features = torch.from_numpy(split.log.item_features.table)
        times = split.log.timestamps[~held_out(split)]
        span_s = (int(times.min()), int(times.max()))
        settings = dataclasses.replace(self.settings, calendar_span_s=span_s)
        return self.kind(split.log.num_items, settings, features)

    def change(self, **changes: object) -> "Recipe":
        """A copy with these fields changed, whether the recipe's own, its settings' or its views'."""
        inner = {"settings": self.settings, "views": self.views}
        parts: dict[str, object] = {}
        for name, part in inner.items():
            own = {field.name for field in dataclasses.fields(part)}
            found = {key: changes.pop(key) for key in sorted(own & changes.keys())}
            parts[name] = dataclasses.replace(part, **found)  # type: ignore[arg-type]
        return dataclasses.replace(self, **{**parts, **changes})  # type: ignore[arg-type]


RECIPES = {
    "hstu": Recipe(
        kind=HSTU,
        settings=Settings(
            heads=4, layers=2, dropout=0.3, calendar=32, gap=True, seen=256, item_features=True
        ),
        views=Views(shuffle_ties=True),
        stride=25,
        learning_rate=5e-3,
        weight_decay=0.01,
        smoothing=0.05,
        average=0.98,
        epochs=20,
        patience=6,
    ),
    "sasrec": Recipe(
        kind=SASRec,
        settings=Settings(heads=1, layers=2, dropout=0.2),
        views=Views(shuffle_ties=True),
        stride=25,
        learning_rate=5e-3,
        weight_decay=0.0,
        smoothing=0.05,
        average=0.99,
        epochs=20,
        patience=6,
    ),
}


def recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise SpecError(f"no model {name!r}; there are {', '.join(RECIPES)} and popularity")
    return RECIPES[name]
