"""Weights worth keeping: a moving average of them, and the average that did best on validation."""

import copy
from typing import Any

import torch
from torch import nn

from recipes.recommender.models.base import SequenceModel


class Best:
    """Averages a model's weights step by step and remembers the average that scored best.

    Resumes with the run: give it to the loop as `extra`.
    """

    def __init__(self, model: SequenceModel, decay: float, patience: int) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        """The average, ready to evaluate."""
        self.decay, self.patience = decay, patience
        self.steps = self.epochs = self.epoch = 0
        self.score = float("-inf")
        self.weights = copy.deepcopy(self.model.state_dict())

    @property
    def patience_is_over(self) -> bool:
        return self.epochs - self.epoch >= self.patience

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Move the average towards the model's weights; early on the average is a plain one."""
        decay = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1.0 - decay)
        self.steps += 1

    def judge(self, score: float) -> None:
        """End an epoch with this validation score of the average."""
        self.epochs += 1
        if score > self.score:
            self.score, self.epoch = score, self.epochs
            self.weights = copy.deepcopy(self.model.state_dict())

    def restore(self) -> SequenceModel:
        """The model with the best weights."""
        self.model.load_state_dict(self.weights)
        return self.model.eval()

    def state_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("steps", "epochs", "epoch", "score")}
        return {**counts, "model": self.model.state_dict(), "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("steps", "epochs", "epoch", "score"):
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.weights = state["weights"]
