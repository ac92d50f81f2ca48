"""Taking the same state apart again gives what taking it apart anew gives."""

import json
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tradewind.train.checkpoint.recall import Recall
from tradewind.train.checkpoint.tree import Flattener


def check(recall: Recall, state: dict[str, Any]) -> None:
    """The recalled tree, tensors and form are those of a Flattener that never saw the state before."""
    found, text, form = recall.take(state)
    fresh = Flattener()
    tree = fresh.encode(state)
    assert json.dumps(json.loads(text)) == json.dumps(tree)
    assert list(found.tensors) == list(fresh.tensors) == form[0]
    for name, tensor in fresh.tensors.items():
        assert found.tensors[name].data_ptr() == tensor.data_ptr() or torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].shape == tensor.shape


def training() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], dict[str, Any]]]:
    """A model with tied weights, its optimizer, and a call that takes their state."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])

    def state() -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        }

    return model, optimizer, state


def test_training_is_recalled_step_by_step() -> None:
    """Over real steps, with numbers that change and memory that stays, every state is taken right."""
    model, optimizer, state = training()
    recall, recalled = Recall(), []
    again = recall._again
    recall._again = lambda *given: recalled.append(1) or again(*given)  # type: ignore[method-assign, func-returns-value, assignment]
    for step in range(6):
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.9
        optimizer.param_groups[0]["note"] = {"step": step, "big": 2**70 * step, "inf": float("inf")}
        check(recall, state())
    assert len(recalled) == 5


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another number": lambda s: s["p"].update(lr=0.5),
    "nan": lambda s: s["p"].update(lr=float("nan")),
    "negative zero": lambda s: s["p"].update(lr=-0.0),
    "another type": lambda s: s["p"].update(flag=1),
    "tensor for number": lambda s: s["p"].update(lr=torch.ones(1)),
    "number for tensor": lambda s: s["m"].update(a=3),
    "key added": lambda s: s["p"].update(new=1),
    "key removed": lambda s: s["p"].pop("flag"),
    "key order": lambda s: s["p"].update(lr=s["p"].pop("lr")),
    "list grown": lambda s: s["p"]["list"].append(4),
    "list emptied": lambda s: s["p"]["list"].clear(),
    "tensor in list": lambda s: s["p"]["list"].append(torch.ones(2)),
    "tuple for list": lambda s: s["p"].update(list=(1, 2, 3)),
    "moved tensor": lambda s: s["m"].update(a=torch.full((3,), 7.0)),
    "untied": lambda s: s["m"].update(tied=torch.zeros(3)),
    "tied otherwise": lambda s: s["m"].update(b=s["m"]["a"]),
    "other shape": lambda s: s["m"].update(b=s["m"]["b"].reshape(2, 2)),
    "transposed": lambda s: s["m"].update(b=s["m"]["b"].reshape(2, 2).t()),
    "other dtype": lambda s: s["m"].update(b=s["m"]["b"].view(torch.int32)),
    "complex": lambda s: s["m"].update(b=torch.ones(2, dtype=torch.complex64)),
    "swapped": lambda s: s["m"].update(a=s["m"]["b"], b=s["m"]["a"]),
    "empty": lambda s: s["m"].update(a=torch.zeros(0)),
    "other container": lambda s: s.update(m=dict(s["m"])),
    "tensor in counter": lambda s: s["p"]["counter"].update({7: torch.ones(1)}),
    "counter": lambda s: s["p"]["counter"].update([1]),
    "string": lambda s: s["p"].update(text="\ud800"),
}


def build() -> dict[str, Any]:
    """A state with all kinds of parts."""
    a = torch.ones(3)
    model = OrderedDict(a=a, b=torch.arange(4.0), tied=a)
    return {
        "m": model,
        "p": {
            "lr": 0.1,
            "flag": True,
            "list": [1, 2, 3],
            "text": "x",
            "counter": Counter([1, 2]),
            5: {"t": torch.ones(1)},
        },
    }


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_noticed(name: str) -> None:
    """Whatever changes between two times, the second is right, and so is one after it."""
    recall, state = Recall(), build()
    check(recall, state)
    check(recall, state)
    CHANGES[name](state)
    check(recall, state)
    check(recall, state)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("tensor")


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.lists(leaves, max_size=3) | leaves, max_size=3),
        min_size=2,
        max_size=6,
    )
)
def test_any_sequence_of_states(sequence: list[dict[str, Any]]) -> None:
    """Any states one after another are each taken right."""
    recall, tensors = Recall(), [torch.ones(2), torch.zeros(2)]

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [filled(item) for item in value]
        return tensors[0] if value == "tensor" else value

    for state in sequence:
        check(recall, filled(state))
