"""How each model is built and trained: one frozen value a model, found by `tune.py` on validation only."""

import dataclasses

import torch

from recipes.recommender.models.base import SequenceModel, Settings
from recipes.recommender.models.hstu import HSTU
from recipes.recommender.models.sasrec import SASRec
from recipes.recommender.split import Split
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
    batch_size: int = 64
    """Windows a step, over all workers."""
    stride: int = 50
    """Events between the ends of a user's training windows."""
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 0.0
    smoothing: float = 0.0
    average: float = 0.99
    """Decay of the exponential moving average of the weights, which is what is evaluated; 0 for none."""
    negatives: int = 1024

    def build(self, split: Split) -> SequenceModel:
        features = torch.from_numpy(split.log.item_features.table)
        return self.kind(split.log.num_items, self.settings, features)

    def change(self, **changes: object) -> "Recipe":
        """A copy with these fields changed, whether the recipe's own or its settings'."""
        shape = {f.name for f in dataclasses.fields(Settings)}
        own = {name: value for name, value in changes.items() if name not in shape}
        inner = {name: value for name, value in changes.items() if name in shape}
        return dataclasses.replace(self, **own, settings=dataclasses.replace(self.settings, **inner))  # type: ignore[arg-type]


RECIPES = {
    "hstu": Recipe(kind=HSTU, settings=Settings()),
    "sasrec": Recipe(kind=SASRec, settings=Settings()),
}


def recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise SpecError(f"no model {name!r}; there are {', '.join(RECIPES)} and popularity")
    return RECIPES[name]
